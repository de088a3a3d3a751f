//! Numbers of blocks that folders have as tensors, and GGUF as arrays in its metadata: every form of them is read, and
//! damage is refused.

use curmerge::base::Base;
use curmerge_formats::gguf::{Array, Value};
use serde_json::{Value as Json, json};

use crate::support::fixture::family;
use crate::support::folder::copy;
use crate::support::remade::Remade;

fn numbers(base: &Base, name: &str) -> Vec<f32> {
    (0..base.config().layers).map(|layer| base.number(&format!("blk.{layer}.{name}")).unwrap()).collect()
}

#[test]
fn gguf_has_an_array_or_one_number() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("model.gguf");
    let model = Remade::of(&family("apertus", "model.gguf"));
    let write = |value: Option<Value>| model.clone().set("xielu.beta", value).write(&path);
    write(Some(Value::F32(0.25)));
    assert_eq!(numbers(&Base::open(&path).unwrap(), "xielu.beta"), [0.25, 0.25]);
    let array = |all: &[f32]| Some(Value::Array(Array::F32(all.to_vec())));
    write(array(&[0.25, 0.5]));
    assert_eq!(numbers(&Base::open(&path).unwrap(), "xielu.beta"), [0.25, 0.5]);
    for damaged in [
        None,
        array(&[]),
        array(&[0.5]),
        array(&[0.5; 3]),
        array(&[0.5, f32::NAN]),
        Some(Value::F32(f32::INFINITY)),
        Some(Value::U32(1)),
        Some(Value::Array(Array::I32(vec![1, 2]))),
    ] {
        write(damaged.clone());
        let error = Base::open(&path).unwrap_err().to_string();
        assert!(error.contains("xielu.beta: not a finite F32 for every block"), "{damaged:?}: {error}");
    }
    // It would be ignored.
    model.clone().with("blk.0.xielu.beta", &[1], &[0.5]).write(&path);
    let error = Base::open(&path).unwrap_err().to_string();
    assert!(error.contains("blk.0.xielu.beta") && error.contains("not supported"), "{error}");
}

/// Changes the header of the folder's safetensors file, whose data stays.
fn change(folder: &std::path::Path, change: impl FnOnce(&mut Json)) {
    let file = folder.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Json = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = header.to_string().into_bytes();
    let parts = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]];
    std::fs::write(file, parts.concat()).unwrap();
}

#[test]
fn folders_have_a_tensor_of_one_number() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("model");
    copy(&family("apertus", "hf"), &folder);
    let right = numbers(&Base::open(&folder).unwrap(), "xielu.beta");
    assert_eq!(right, numbers(&Base::open(family("apertus", "model.gguf")).unwrap(), "xielu.beta"));
    let name = "model.layers.1.mlp.act_fn.beta";
    change(&folder, |header| header[name]["shape"] = json!([1]));
    assert_eq!(numbers(&Base::open(&folder).unwrap(), "xielu.beta"), right);
    change(&folder, |header| {
        let renamed = header.as_object_mut().unwrap().remove(name).unwrap();
        header["model.other"] = renamed;
    });
    let error = Base::open(&folder).unwrap_err().to_string();
    assert!(error.contains("blk.1.xielu.beta"), "{error}");
}

/// Without them the class has a rule of its own.
#[test]
fn apertus_needs_its_rotary_parameters() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("model");
    copy(&family("apertus", "hf"), &folder);
    let config = folder.join("config.json");
    let mut json: Json = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["rope_scaling"] = Json::Null;
    std::fs::write(&config, json.to_string()).unwrap();
    let error = Base::open(&folder).unwrap_err().to_string();
    assert!(error.contains("rope_parameters: missing"), "{error}");
}
