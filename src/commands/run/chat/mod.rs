//! `curmerge run` without a prompt: a conversation, on a terminal or through pipes.
//!
//! `input` reads messages, `command` the lines that begin with a slash, `dialogue` holds what was said, and `voice` is a
//! model that answers: the base or the adapted one.

mod command;
mod dialogue;
mod input;
mod voice;

use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use self::command::Command;
use self::dialogue::{Dialogue, Speaker};
use self::input::{Input, Line};
use self::voice::Voice;
use super::RunArgs;
use super::answer::{Answer, End, Writer};
use crate::base::{Base, Config};
use crate::chat::{ChatError, ChatTemplate};
use crate::commands::arguments::{AdapterArgs, AdapterPart};
use crate::commands::hub;
use crate::commands::interrupt;
use crate::commands::report::{errors, terminal};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A conversation with a model.
struct Chat<'a> {
    args: &'a RunArgs,
    base: &'a Base,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    context: usize,
    json: bool,
    /// The models that have answered, or were asked to: the base and the adapted one.
    voices: [Option<Voice<'a>>; 2],
    /// Those that answer.
    speaking: Vec<Speaker>,
    dialogue: Dialogue,
}

/// Leads a conversation until the input ends.
pub(super) fn run(args: &RunArgs, base: &Base, json: bool) -> Result<()> {
    let tokenizer = base.tokenizer()?;
    let template = base.chat_template(&tokenizer)?.ok_or(ChatError::NoTemplate)?;
    let mut chat = Chat {
        args,
        base,
        template,
        context: context(args, base.config())?,
        tokenizer,
        json,
        voices: [None, None],
        speaking: vec![Speaker::Base],
        dialogue: Dialogue::default(),
    };
    chat.voices[Speaker::Base.index()] = Some(chat.voice(&AdapterArgs::plain(Vec::new()))?);
    if !args.adapters.adapters.is_empty() {
        chat.voices[Speaker::Adapted.index()] = Some(chat.voice(&args.adapters)?);
        chat.speaking = if args.compare { Speaker::BOTH.to_vec() } else { vec![Speaker::Adapted] };
    }
    chat.dialogue.set_system(args.template.system.clone());
    let mut input = Input::open();
    if input.is_terminal() {
        // From here on, so that Ctrl-C right after a message does not end the program.
        interrupt::talk();
        let name = terminal::shortened(&base.name(), 60);
        note(&format!("{name}, {} tokens of context. /help lists commands, Ctrl-D ends.", chat.context));
    }
    while let Some(line) = input.next()? {
        // A conversation in a pipe ends at its first error; on a terminal one can try again.
        match chat.take(line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if input.is_terminal() => note(&format!("error: {}", errors::line(&error))),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The greatest length of the conversation. Phi 3 has other rotary frequencies beyond its first context, for short texts,
/// too: one must ask for them.
fn context(args: &RunArgs, config: &Config) -> Result<usize> {
    let most = args.context(config)?;
    let long = config.rope.as_ref().and_then(|rope| rope.long.as_ref());
    Ok(match long.filter(|_| args.ctx_size.is_none()) {
        Some(long) => most.min(long.original_context),
        None => most,
    })
}

/// A line for the person at the terminal, beside what the models say.
#[expect(clippy::print_stderr, reason = "standard output is what the models say")]
fn note(text: &str) {
    let lines: Vec<String> = text.split('\n').map(terminal::plain).collect();
    eprintln!("{}", lines.join("\n"));
}

impl<'a> Chat<'a> {
    /// Does what a line says; whether the conversation goes on.
    fn take(&mut self, line: Line) -> Result<bool> {
        let stop = interrupt::next_answer();
        let text = match line {
            Line::Interrupted => {
                note("(/exit or Ctrl-D ends)");
                return Ok(true);
            }
            Line::Text(text) => text,
        };
        match command::parse(&text)? {
            None if text.trim().is_empty() => {}
            None => {
                self.answer(&text, stop)?;
                // Nobody reads any further answer.
                return Ok(!terminal::is_closed());
            }
            Some(Command::Exit) => return Ok(false),
            Some(Command::Help) => note(command::HELP),
            Some(Command::Reset) => self.dialogue.clear(),
            Some(Command::System(text)) => self.dialogue.set_system(text),
            Some(Command::Save(path)) => {
                let rows = self.dialogue.save(&path, &self.speaking)?;
                note(&format!("{}: {rows} row(s) appended, in the form that build reads", path.display()));
            }
            Some(Command::Compare(both)) => {
                self.must_be_adapted("/compare")?;
                self.speaking = if both { Speaker::BOTH.to_vec() } else { vec![Speaker::Adapted] };
            }
            Some(Command::AdapterOff) => self.speaking = vec![Speaker::Base],
            Some(Command::AdapterOn) => {
                self.must_be_adapted("/adapter on")?;
                self.speaking = vec![Speaker::Adapted];
            }
            Some(Command::Adapter(mut part)) => {
                hub::fetch_adapter(&mut part)?;
                let adapters = AdapterArgs { adapters: vec![part], ..self.args.adapters.clone() };
                self.voices[Speaker::Adapted.index()] = Some(self.voice(&adapters)?);
                if !self.speaking.contains(&Speaker::Adapted) {
                    self.speaking = vec![Speaker::Adapted];
                }
            }
        }
        Ok(true)
    }

    fn must_be_adapted(&self, command: &str) -> Result<()> {
        match self.voices[Speaker::Adapted.index()] {
            Some(_) => Ok(()),
            None => Err(Error::request(
                format!("{command} needs an adapter, and there is none"),
                "give one with /adapter FILE, or with --adapter",
            )),
        }
    }

    /// The base with these adapters.
    fn voice(&self, adapters: &AdapterArgs) -> Result<Voice<'a>> {
        let mut model = self.args.model(self.base, adapters)?;
        model.for_context(self.context)?;
        Ok(Voice::new(model, self.args.sampling.sampler(true)))
    }

    /// Answers a message, and prints the answers while they are written; `stop` is set when they shall end.
    fn answer(&mut self, message: &str, stop: &AtomicBool) -> Result<()> {
        self.dialogue.ask(message);
        for speaker in self.speaking.clone() {
            let done = self.answer_as(speaker, stop);
            // A question without an answer would be an odd part of what follows.
            if !matches!(&done, Ok(answer) if answer.end != End::Stopped || !answer.text.is_empty()) {
                self.dialogue.drop_unanswered();
            }
            if done?.end == End::Stopped {
                break;
            }
        }
        Ok(())
    }

    fn answer_as(&mut self, speaker: Speaker, stop: &AtomicBool) -> Result<Answer> {
        let prompt = self.prompt(speaker)?;
        let headed = self.speaking.len() > 1 && !self.json;
        if headed {
            terminal::print(&format!("{}:\n", speaker.name()))?;
        }
        let json = self.json;
        let voice = self.voices[speaker.index()].as_mut().expect("models that speak were made");
        let show = |text: &str| if json { Ok(()) } else { terminal::print_written(text) };
        let (tokenizer, context, limit) = (&self.tokenizer, self.context, self.args.limit(None));
        let writer = Writer { model: &voice.model, tokenizer, limit, context, stop };
        let answer = writer.write(&mut voice.sequence, &mut voice.sampler, &prompt, |_| (), show)?;
        self.dialogue.answered(speaker, &answer.text);
        if json {
            terminal::print(&format!(
                "{}\n",
                json!({
                    "role": "assistant", "model": speaker.name(), "content": answer.text,
                    "finish_reason": answer.end.name(), "prompt_tokens": prompt.len(),
                    "computed_prompt_tokens": answer.read, "completion_tokens": answer.tokens.len(),
                })
            ))?;
            return Ok(answer);
        }
        // An empty line between answers helps the eye; a program counts lines.
        let gap = if headed || std::io::stdout().is_terminal() { "\n\n" } else { "\n" };
        terminal::print(gap)?;
        match answer.end {
            End::Stopped => note("(stopped)"),
            End::Context => note(&format!("(the context of {context} tokens is full; /reset begins anew)")),
            End::Token | End::Limit => {}
        }
        Ok(answer)
    }

    /// The tokens of the conversation. Of one that leaves no room for an answer, the first messages are left out.
    fn prompt(&mut self, speaker: Speaker) -> Result<Vec<u32>> {
        let room = self.args.limit(None).unwrap_or(usize::MAX).min(self.context / 4).max(1);
        loop {
            let messages = self.dialogue.messages(speaker);
            let prompt = self.template.encode(&self.tokenizer, &messages, true)?;
            if prompt.len() + room <= self.context {
                return Ok(prompt);
            }
            let was_whole = self.dialogue.is_whole();
            if !self.dialogue.leave_first_out() {
                let problem = format!(
                    "the message has {} tokens with the template, and {room} of the {} of the context are kept for the answer",
                    prompt.len(),
                    self.context
                );
                return Err(Error::request(problem, "send a shorter one"));
            }
            if was_whole {
                let context = self.context;
                terminal::warn(&format!(
                    "the conversation no longer fits the context of {context} tokens: its first messages are left out"
                ));
            }
        }
    }
}

/// An adapter as `/adapter` names it.
fn part(text: &str) -> AdapterPart {
    AdapterPart::parse(text.as_ref())
}
