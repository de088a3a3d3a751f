//! What was said.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::chat::Message;
use crate::{Error, Result};

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// The model without adapters.
    Base,
    /// The model with them.
    Adapted,
}

impl Speaker {
    pub(super) const BOTH: [Self; 2] = [Self::Base, Self::Adapted];

    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Adapted => "adapted",
        }
    }
}

/// A question and its answers.
#[derive(Clone, Debug)]
struct Turn {
    question: String,
    /// By speaker.
    answers: [Option<String>; 2],
}

impl Turn {
    /// The answer of this speaker, or else the other's: after a change of speakers, one goes on with what the other said.
    fn answer(&self, speaker: Speaker) -> Option<&str> {
        let own = self.answers[speaker.index()].as_deref();
        own.or_else(|| self.answers.iter().flatten().map(String::as_str).next())
    }
}

/// A conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct Dialogue {
    system: Option<String>,
    turns: Vec<Turn>,
    /// How many of the turns are left out of what a model reads, and how many were before the last question.
    left_out: usize,
    left_out_before: usize,
}

impl Dialogue {
    /// Begins anew, with the same system message.
    pub(super) fn clear(&mut self) {
        (self.turns, self.left_out, self.left_out_before) = (Vec::new(), 0, 0);
    }

    /// Begins anew, with this system message, if there is one.
    pub(super) fn set_system(&mut self, text: Option<String>) {
        self.clear();
        self.system = text;
    }

    /// Whether nothing is left out of what a model reads.
    pub(super) fn is_whole(&self) -> bool {
        self.left_out == 0
    }

    /// A question that is not yet answered.
    pub(super) fn ask(&mut self, question: &str) {
        self.turns.push(Turn { question: question.to_owned(), answers: [None, None] });
        self.left_out_before = self.left_out;
    }

    /// The speaker's answer to the last question.
    pub(super) fn answered(&mut self, speaker: Speaker, text: &str) {
        if let Some(turn) = self.turns.last_mut() {
            turn.answers[speaker.index()] = Some(text.to_owned());
        }
    }

    /// Forgets a last question that nobody answered, or whose answer is empty.
    pub(super) fn drop_unanswered(&mut self) {
        let empty = |turn: &Turn| turn.answers.iter().flatten().all(String::is_empty);
        if self.turns.last().is_some_and(empty) {
            self.turns.pop();
            self.left_out = self.left_out_before;
        }
    }

    /// Leaves the first question and its answer out of what models read; false if only the last question remains.
    pub(super) fn leave_first_out(&mut self) -> bool {
        let more = self.left_out + 1 < self.turns.len();
        self.left_out += usize::from(more);
        more
    }

    /// What the speaker reads before its answer to the last question.
    pub(super) fn messages(&self, speaker: Speaker) -> Vec<Message> {
        let pairs = self.pairs(speaker, self.left_out);
        let open = self.turns.len().saturating_sub(1);
        let before =
            pairs.len() - usize::from(self.turns.get(open).is_some_and(|t| t.answer(speaker).is_some()));
        pairs[..before].iter().map(|(role, text)| Message::new(*role, *text)).collect()
    }

    /// Roles and texts, without the first turns.
    fn pairs(&self, speaker: Speaker, from: usize) -> Vec<(&'static str, &str)> {
        let mut all: Vec<_> = self.system.iter().map(|text| ("system", text.as_str())).collect();
        for turn in &self.turns[from..] {
            all.push(("user", &turn.question));
            all.extend(turn.answer(speaker).map(|text| ("assistant", text)));
        }
        all
    }

    /// Appends the whole conversation to a file of JSON lines, a row for each of the speakers; returns how many.
    ///
    /// # Errors
    /// Nothing was said; another file; one that cannot be written.
    pub(super) fn save(&self, path: &Path, speakers: &[Speaker]) -> Result<usize> {
        if self.turns.is_empty() {
            return Err(Error::request("nothing was said yet", "ask something first"));
        }
        if path.extension().is_none_or(|ending| ending != "jsonl") {
            let problem = "is not named as a file of JSON lines, to which a conversation is appended";
            return Err(Error::file(path, problem, "give it a name that ends in .jsonl"));
        }
        let row = |speaker: &Speaker| -> Json {
            let pairs = self.pairs(*speaker, 0).into_iter();
            let messages: Vec<Json> =
                pairs.map(|(role, text)| json!({ "role": role, "content": text })).collect();
            json!({ "messages": messages })
        };
        let mut rows: String = speakers.iter().map(|speaker| format!("{}\n", row(speaker))).collect();
        let failed = |e| Error::io(path, "append to", e);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(failed)?;
        // The last line of a file may have no end.
        if file.metadata().map_err(failed)?.len() > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
            if last != *b"\n" {
                rows.insert(0, '\n');
            }
        }
        file.write_all(rows.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(speakers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(dialogue: &Dialogue, speaker: Speaker) -> Vec<String> {
        dialogue.messages(speaker).iter().map(|message| message.role().to_owned()).collect()
    }

    #[test]
    fn each_speaker_goes_on_with_its_own_answers() {
        let mut dialogue = Dialogue::default();
        dialogue.ask("one");
        assert_eq!(texts(&dialogue, Speaker::Base), ["user"]);
        dialogue.answered(Speaker::Adapted, "1");
        dialogue.ask("two");
        dialogue.answered(Speaker::Base, "2");
        // The base has answered, and the adapted model is still to answer the same question.
        assert_eq!(texts(&dialogue, Speaker::Adapted), ["user", "assistant", "user"]);
        dialogue.answered(Speaker::Adapted, "zwei");
        dialogue.system = Some("s".into());
        dialogue.ask("three");
        assert_eq!(dialogue.pairs(Speaker::Base, 0)[2], ("assistant", "1"));
        assert_eq!(dialogue.pairs(Speaker::Base, 0)[4], ("assistant", "2"));
        assert_eq!(dialogue.pairs(Speaker::Adapted, 0)[4], ("assistant", "zwei"));
        assert!(dialogue.leave_first_out() && dialogue.leave_first_out() && !dialogue.leave_first_out());
        assert_eq!(texts(&dialogue, Speaker::Base), ["system", "user"]);
        dialogue.drop_unanswered();
        assert_eq!(dialogue.turns.len(), 2);
        // A question that did not fit leaves what was read before it.
        assert!(dialogue.is_whole());
        dialogue.drop_unanswered();
        assert_eq!(dialogue.turns.len(), 2);
        dialogue.set_system(None);
        assert!(dialogue.turns.is_empty());
    }
}
