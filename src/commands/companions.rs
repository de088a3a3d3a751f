//! Messages on the files beside a model.

use crate::commands::report::terminal;
use crate::convert::ConvertReport;
use crate::rewrite::{Companion, renamed_card};

/// One line on a file that is missing in the output, against what one may expect.
pub(super) fn line(companion: &Companion) -> String {
    let path = terminal::plain(&companion.path().to_string_lossy());
    match companion {
        Companion::OldWeights(_) => format!("{path} was left out: it has the old weights in another form"),
        Companion::OfAdapter(_) => {
            format!("{path} was left out: programs would apply this adapter to the output")
        }
        Companion::OfTraining(_) => format!("{path} was left out: a trainer saved it to go on later"),
        Companion::BaseCard(own) => {
            let name = renamed_card(own).unwrap_or_default();
            format!("{path}, the base's model card, is {} in the output, which has its own", name.display())
        }
        Companion::LeadsOut(_) => format!("{path} was left out: this link leads out of the folder"),
        Companion::NotOrdinary(_) => format!("{path} was left out: it is not an ordinary file or folder"),
    }
}

/// The notes on a conversion, then a line on each of its companions that [`line()`] describes.
pub(super) fn with_notes(report: &ConvertReport) -> Vec<String> {
    report.notes.iter().cloned().chain(report.companions.iter().map(line)).collect()
}
