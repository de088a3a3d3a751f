//! What `curmerge --version --verbose` says of how the program was built.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CURMERGE_COMMIT");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=CURMERGE_RUSTC={}", version.unwrap_or_default());
    for (name, variable) in [("TARGET", "CURMERGE_TARGET"), ("PROFILE", "CURMERGE_PROFILE")] {
        println!("cargo::rustc-env={variable}={}", std::env::var(name).unwrap_or_default());
    }
    // Set by who packages a release; a checkout's commit would mean compiling anew after each.
    let commit = std::env::var("CURMERGE_COMMIT").unwrap_or_default();
    println!("cargo::rustc-env=CURMERGE_COMMIT={commit}");
}
