#!/usr/bin/env bash
# Builds the library for C on Linux and installs the files that `cargo cinstall` installs: headers, shared and static library, and the
# files of pkg-config and CMake. cargo-c takes some minutes to be installed itself.
#
# Usage: examples/c/install.sh PREFIX [ARGUMENT OF CARGO...]      for example examples/c/install.sh "$HOME/normdrop" --features rayon
set -euo pipefail

prefix=$(realpath -m "${1:?the folder to install into; the usage is in the script}")
shift
cd "$(dirname "$0")/../.."
version=$(sed -n '/^\[package\]/,/^\[dep/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Before 1.0 every minor version may be another interface, and the loader looks for this name.
soname=libnormdrop.so.${version%.*}

# Threads have their code in the library, which must stay in memory then, also after a dlclose.
link="-Clink-arg=-Wl,-soname,$soname"
[[ "$*" != *rayon* ]] || link+=" -Clink-arg=-Wl,-z,nodelete"

# Nothing unwinds into C. The target is named so that RUSTFLAGS are for the library alone.
host=$(rustc -vV | sed -n 's/^host: //p')
CARGO_PROFILE_RELEASE_PANIC=abort RUSTFLAGS="${RUSTFLAGS-} $link" cargo rustc --release --locked \
    --target "$host" --features capi,half-precision --crate-type cdylib,staticlib "$@"
built=${CARGO_TARGET_DIR:-target}/$host/release

install -d "$prefix/include" "$prefix/lib/pkgconfig" "$prefix/share/normdrop/cmake"
install -m 644 include/normdrop.h include/normdrop.hpp include/normdrop_module.h "$prefix/include/"
install -m 644 cmake/*.cmake "$prefix/share/normdrop/cmake/"
install -m 644 "$built/libnormdrop.a" "$prefix/lib/"
install -m 755 "$built/libnormdrop.so" "$prefix/lib/libnormdrop.so.$version"
ln -sf "libnormdrop.so.$version" "$prefix/lib/$soname"
ln -sf "$soname" "$prefix/lib/libnormdrop.so"
cat >"$prefix/lib/pkgconfig/normdrop.pc" <<PC
prefix=$prefix
exec_prefix=\${prefix}
libdir=\${exec_prefix}/lib
includedir=\${prefix}/include

Name: normdrop
Description: Fused batch norm, activation and dropout, forward and backward
Version: $version
Libs: -L\${libdir} -lnormdrop
Cflags: -I\${includedir}
Libs.private: -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
PC
