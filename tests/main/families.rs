//! The lists of fixtures in tests/support/families.rs are complete and right.

use std::collections::BTreeSet;

use curmerge::arch;

use crate::support::families::{ALL, CONVERTIBLE, Container, Family};
use crate::support::fixture;

#[test]
fn every_folder_of_fixtures_is_listed() {
    let entries = std::fs::read_dir(fixture::path("arch")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().join("goldens.json").exists());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    let listed: BTreeSet<String> = ALL.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(folders, listed, "add what is missing to each_family! in tests/support/families.rs");
}

#[test]
fn every_architecture_has_a_fixture() {
    let with: BTreeSet<&str> =
        ALL.iter().map(|name| Family::open(name).architecture().hugging_face.class).collect();
    let known: BTreeSet<&str> = arch::ALL.iter().map(|known| known.hugging_face.class).collect();
    assert_eq!(with, known, "fixtures/arch/README.md says how to make a fixture");
}

#[test]
fn the_fixtures_that_become_onnx_models_are_listed() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ALL {
        let out = scratch.path().join(format!("{name}.onnx"));
        let ran = curmerge!("convert", Family::open(name).path(Container::Folder), out);
        let status = i32::from(!CONVERTIBLE.contains(name));
        assert_eq!(ran.status, Some(status), "{name}: {}", ran.stderr);
    }
}
