//! An ONNX model with new values in some of its tensors. Types, shapes and the graph stay.
//!
//! A model may keep tensors in files beside it. They appear together with the model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use curmerge_formats::onnx::{NewFile, Node, Onnx, Replacement, RewriteOptions, rewrite};
use curmerge_formats::output::{OutputFile, OutputFolder};

use super::companions;
use super::destination::Destination;
use super::tensors::{ComputedTensor, ComputedTensors};
use super::writer::{Hooks, Writer};
use crate::base::OnnxModel;
use crate::{Error, Result};

/// Writes a model with new values. If the name ends in .onnx, it writes the model and its external files.
/// Otherwise it writes a folder in transformers.js's layout, with `companions`, which are files of the
/// model's own folder. Returns the path of the model file.
///
/// # Errors
/// A replaced tensor that is not a constant, or that several nodes use; an output without a name; those of
/// `hooks` and the tensors; a full disk. After an error the destination is unchanged.
pub fn write<T: ComputedTensor>(
    model: &OnnxModel,
    new: &ComputedTensors<'_, T>,
    companions: &[PathBuf],
    to: &Destination<'_>,
    hooks: Hooks<'_, T>,
) -> Result<PathBuf> {
    let onnx = model.onnx();
    if to.path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
        write_files(onnx, new, to.path, &to.inputs, hooks)?;
        return Ok(to.path.into());
    }
    let folder = OutputFolder::create(to.path, &to.inputs, to.force)?;
    let name = onnx.path().file_name().unwrap_or_default();
    let own = if model.is_in_subfolder() { Path::new("onnx").join(name) } else { PathBuf::from(name) };
    folder.subfolder(own.parent().unwrap_or(Path::new("")))?;
    write_files(onnx, new, &folder.path().join(&own), &to.inputs, hooks)?;
    for name in companions {
        companions::copy(&model.folder().join(name), name, &folder)?;
    }
    folder.commit()?;
    Ok(to.path.join(own))
}

/// Writes the model file and its external files.
fn write_files<T: ComputedTensor>(
    onnx: &Onnx,
    new: &ComputedTensors<'_, T>,
    out: &Path,
    inputs: &[&Path],
    hooks: Hooks<'_, T>,
) -> Result<()> {
    let replacements = new.names().iter().map(|name| replacement(onnx, name));
    let replacements = replacements.collect::<Result<Vec<_>>>()?;
    let files = rewrite(onnx, &replacements, &file_names(onnx, out)?)?;
    let folder = out.parent().unwrap_or(Path::new(""));
    let path = |file: &NewFile<'_>| file.location.as_ref().map_or(out.to_path_buf(), |l| folder.join(l));
    let paths: Vec<PathBuf> = files.iter().map(path).collect();
    let mut outputs = OutputFile::create_together(&paths, inputs)?;
    if let Some(model) = outputs.last() {
        model.must_fit(files.iter().map(|file| file.pieces.bytes()).sum())?;
    }
    let mut writer = Writer::new(new, hooks);
    for (file, output) in files.iter().zip(&outputs) {
        writer.write(&file.pieces, output)?;
    }
    // The model's own file is the last.
    match outputs.pop() {
        Some(model) => Ok(model.commit_after(outputs)?),
        None => Ok(()),
    }
}

/// New values for the constant of this name, which one node uses.
fn replacement<'m>(onnx: &'m Onnx, name: &str) -> Result<Replacement<'m>> {
    let refuse = |problem: String| {
        let help = "export the model again without sharing weights";
        Error::input(onnx.path(), format!("tensor '{}'", name.escape_debug()), problem, help)
    };
    let tensor = onnx.constant(name).ok_or_else(|| refuse("no constant".into()))?;
    if let [one, other] = users(onnx, name)[..] {
        let called = |node: &Node| format!("{} '{}'", node.op_type.escape_debug(), node.name.escape_debug());
        let problem = format!("{} and {} both use it, but only one may change", called(one), called(other));
        return Err(refuse(problem));
    }
    Ok(Replacement { tensor, element: tensor.element, dims: tensor.dims.clone() })
}

/// The nodes that use a value for more than its shape, at most two of them.
fn users<'m>(onnx: &'m Onnx, name: &str) -> Vec<&'m Node> {
    let (mut found, mut seen, mut names) = (Vec::new(), BTreeSet::from([name]), vec![name]);
    while let Some(name) = names.pop() {
        for node in onnx.users_of(name) {
            match node.op_type.as_str() {
                "Transpose" | "Cast" | "Identity" | "Reshape" => {
                    names.extend(node.outputs.iter().map(String::as_str).filter(|name| seen.insert(name)));
                }
                _ => found.push(node),
            }
            if found.len() > 1 {
                return found;
            }
        }
    }
    found
}

/// The names of the files beside the model. They stay if the model keeps its name. Otherwise they are named
/// after it.
fn file_names(onnx: &Onnx, out: &Path) -> Result<RewriteOptions> {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_string);
    let own = name(out).ok_or_else(|| {
        Error::input(out, "output", "it has no name from which to name its files", "name a .onnx file")
    })?;
    let before = name(onnx.path());
    let mut options = RewriteOptions::new(String::new());
    let mut taken = vec![own.clone()];
    for file in onnx.external_files() {
        let location = &file.location;
        let basename = location.rsplit('/').next().unwrap_or(location);
        if before.as_ref() == Some(&own) && basename == location {
            taken.push(location.clone());
            continue;
        }
        let rest = before.as_ref().and_then(|before| basename.strip_prefix(before.as_str()));
        let mut new = rest.map_or_else(|| format!("{own}.{basename}"), |rest| format!("{own}{rest}"));
        while taken.contains(&new) {
            new += "_";
        }
        taken.push(new.clone());
        options.locations.insert(location.clone(), new);
    }
    options.external = format!("{own}.data");
    while taken.contains(&options.external) {
        options.external += "_";
    }
    Ok(options)
}
