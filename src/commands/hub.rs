//! `hf:` names on the command line: every argument that names an input becomes the path of what was downloaded,
//! before its command begins. So commands know files alone.

use std::path::{Path, PathBuf};

use indicatif::{DecimalBytes, ProgressBar};

use super::anchor::AnchorSource;
use super::arguments::{AdapterArgs, AdapterPart};
use super::report::{progress, terminal};
use super::{Command, build, select};
use crate::hub::{Event, Hub, Name, Wanted};
use crate::train::data;
use crate::{Error, Result};

/// Files in the line of a download.
const MAX_LISTED: usize = 3;

/// An argument that names one input or several.
enum Input<'a> {
    One(&'a mut PathBuf, Wanted),
    Several(&'a mut Vec<PathBuf>, Wanted),
}

const DATA: Wanted = Wanted::Data(data::is_data);
/// Text may have any ending.
const TEXT: Wanted = Wanted::Data(|_| true);

/// Fetches what the command's arguments name on the Hub, and puts the paths in their place.
pub(super) fn fetch(command: &mut Command) -> Result<()> {
    let mut hub = Lazy::default();
    for input in inputs(command) {
        match input {
            Input::One(path, wanted) => *path = hub.path(path, wanted)?,
            Input::Several(paths, wanted) => *paths = hub.paths(paths, wanted)?,
        }
    }
    Ok(())
}

/// The same for an adapter that is named later.
pub(super) fn fetch_adapter(part: &mut AdapterPart) -> Result<()> {
    part.path = Lazy::default().path(&part.path, Wanted::Adapter)?;
    Ok(())
}

/// The path of a base that may be a name of the Hub.
pub(super) fn base(path: &Path) -> Result<PathBuf> {
    Lazy::default().path(path, Wanted::Base)
}

/// The paths of data, some of which may be names of the Hub.
pub(super) fn data(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    Lazy::default().paths(paths, DATA)
}

/// The arguments of a command that name inputs.
fn inputs(command: &mut Command) -> Vec<Input<'_>> {
    use Input::{One, Several};
    use Wanted::{Adapter, Base, ImportanceMatrix};
    match command {
        Command::Build(args) => {
            let build::BuildArgs { base, data, training, protection, .. } = &mut **args;
            let mut all = vec![One(base, Base), Several(data, DATA)];
            all.extend(training.valid.as_mut().map(|valid| One(valid, DATA)));
            all.extend(training.init.as_mut().map(|init| One(init, Adapter)));
            all.extend(anchor(&mut protection.anchor.anchor));
            all
        }
        Command::Select(args) => {
            let select::SelectArgs { base, signal, .. } = args;
            let mut all = vec![One(base, Base)];
            all.extend(signal.data.as_mut().map(|data| One(data, DATA)));
            all.extend(anchor(&mut signal.anchor.anchor));
            all
        }
        Command::Merge(args) => {
            let mut all = vec![One(&mut args.base, Base)];
            all.extend(args.adapters.iter_mut().map(adapter));
            all.extend(args.storage.imatrix_mut().map(|file| One(file, ImportanceMatrix)));
            all
        }
        Command::Export(args) => {
            let mut all: Vec<_> = args.adapters.iter_mut().map(adapter).collect();
            all.push(One(&mut args.base, Base));
            all.extend(args.storage.imatrix_mut().map(|file| One(file, ImportanceMatrix)));
            all
        }
        Command::Extract(args) => vec![One(&mut args.base, Base), One(&mut args.tuned, Base)],
        Command::Convert(args) => {
            let mut all = vec![One(&mut args.input, Base)];
            all.extend(args.imatrix.as_mut().map(|file| One(file, ImportanceMatrix)));
            all
        }
        Command::Data(args) => {
            let mut all = vec![Several(&mut args.files, DATA)];
            all.extend(args.base.as_mut().map(|base| One(base, Base)));
            all
        }
        Command::Eval(args) => {
            let mut all = vec![One(&mut args.base, Base)];
            all.extend(adapters(&mut args.adapters));
            all.extend(args.data.as_mut().map(|data| One(data, DATA)));
            all.extend(args.perplexity.as_mut().map(|text| One(text, TEXT)));
            all.extend(args.against.as_mut().map(|base| One(base, Base)));
            all.extend(args.against_adapters.iter_mut().map(adapter));
            all
        }
        Command::Verify(args) => {
            let mut all = vec![One(&mut args.adapter, Adapter)];
            all.extend(args.base.as_mut().map(|base| One(base, Base)));
            all
        }
        Command::Inspect(args) => args.file.as_mut().map(|file| One(file, Base)).into_iter().collect(),
        Command::Run(args) => {
            let mut all = vec![One(&mut args.base, Base)];
            all.extend(adapters(&mut args.adapters));
            all
        }
        Command::Init(_)
        | Command::Plot(_)
        | Command::Cache(_)
        | Command::Demo(_)
        | Command::Completions(_)
        | Command::Man(_) => Vec::new(),
    }
}

fn adapter(part: &mut AdapterPart) -> Input<'_> {
    Input::One(&mut part.path, Wanted::Adapter)
}

fn adapters(args: &mut AdapterArgs) -> impl Iterator<Item = Input<'_>> {
    args.adapters.iter_mut().map(adapter)
}

fn anchor(source: &mut AnchorSource) -> Option<Input<'_>> {
    match source {
        AnchorSource::File(path) => Some(Input::One(path, TEXT)),
        AnchorSource::Written | AnchorSource::None => None,
    }
}

/// The Hub, once a name of it is met.
#[derive(Default)]
struct Lazy(Option<Hub>);

impl Lazy {
    /// A path as it is, or the one that a name stands for.
    fn path(&mut self, path: &Path, wanted: Wanted) -> Result<PathBuf> {
        if Name::is_name(path) { self.one(path, wanted) } else { Ok(path.to_path_buf()) }
    }

    /// The same of several, of which a name may stand for more than one.
    fn paths(&mut self, paths: &[PathBuf], wanted: Wanted) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for path in paths {
            match Name::is_name(path) {
                true => all.append(&mut self.all(path, wanted)?),
                false => all.push(path.clone()),
            }
        }
        Ok(all)
    }

    fn one(&mut self, name: &Path, wanted: Wanted) -> Result<PathBuf> {
        let mut paths = self.all(name, wanted)?;
        match (paths.pop(), paths.len()) {
            (Some(path), 0) => Ok(path),
            (_, others) => {
                let problem = format!("it stands for {} files, and one is wanted", others + 1);
                Err(Error::file(name, problem, "name one of them after the colon"))
            }
        }
    }

    fn all(&mut self, name: &Path, wanted: Wanted) -> Result<Vec<PathBuf>> {
        let name = Name::parse(name.to_str().unwrap_or_default())?;
        let hub = match &mut self.0 {
            Some(hub) => hub,
            none => none.insert(Hub::from_environment()?),
        };
        let mut bar = None;
        let paths = hub.fetch(&name, wanted, &mut |event| show(event, &mut bar));
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        paths
    }
}

/// Shows what happens on standard error.
fn show(event: Event<'_>, bar: &mut Option<ProgressBar>) {
    let mut say = |text: String| bar.get_or_insert_with(|| progress::bytes("downloading")).println(text);
    match event {
        Event::Begin { repository, files, bytes } => {
            let mut listed: Vec<String> =
                files.iter().take(MAX_LISTED).map(|file| terminal::shortened(file, 100)).collect();
            if files.len() > MAX_LISTED {
                listed.push(format!("{} more files", files.len() - MAX_LISTED));
            }
            // Not with the label in front, which is how the line of a bar begins.
            say(format!("{repository}: downloading {} ({})", listed.join(", "), DecimalBytes(bytes)));
        }
        Event::Progress { done, of } => {
            if let Some(bar) = bar {
                bar.set_length(of);
                bar.set_position(done);
            }
        }
        Event::OtherProgram { file } => {
            say(format!("another program downloads {}; waiting for it", terminal::plain(file)));
        }
        Event::Waiting { problem, wait } => {
            let problem = terminal::plain(problem);
            say(format!("the Hub answers with {problem}; asking again in {} s", wait.as_secs()));
        }
        Event::FromCache { name, problem } => {
            terminal::warn(&format!(
                "{name}: the Hub cannot be reached ({problem}); the copy in the cache is used"
            ));
        }
    }
}
