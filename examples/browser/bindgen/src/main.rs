//! Makes the JavaScript module and its types of a library for `wasm32-unknown-unknown`.
//!
//! Usage: `bindgen LIBRARY FOLDER`

use std::env;
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [library, folder] = arguments.as_slice() else {
        eprintln!("usage: bindgen LIBRARY FOLDER");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(library).out_name("normdrop").typescript(true);
    // `init()` without an argument fetches the library from beside the module.
    bindgen.omit_default_module_path(false);
    // Names of functions are for debuggers alone.
    bindgen.remove_name_section(true).remove_producers_section(true);
    let made = bindgen.web(true).and_then(|bindgen| bindgen.generate(folder));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}
