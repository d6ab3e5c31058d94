//! Writes the checked-in seeds into `seeds/`, in place of those that are there.

use std::io;
use std::path::Path;

use normdrop_fuzz::seeds;

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    for seed in seeds::all() {
        let folder = folder.join(seed.folder);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(seed.name), seed.bytes)?;
    }
    Ok(())
}
