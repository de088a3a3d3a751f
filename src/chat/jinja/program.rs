//! A template, compiled so that all its work costs fuel.
//!
//! minijinja charges fuel for each instruction and for what instructions make. But it compares, hashes and
//! writes values without asking how large they are all the way down: a list that contains two references to
//! the same list, forty times over, is 2^40 items to `~` and `==`, and a list nested a hundred thousand deep
//! overflows the stack. So the instructions that look into values or make collections are replaced by filters
//! of [`operations`], which pay first. A template cannot call these filters: their names are not identifiers.

use std::collections::BTreeMap;

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Token, eval, make_string_output, parse, tokenize,
};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::operations::{self, Operation};
use crate::panics::caught;

/// What fails if it panics.
const LIBRARY: &str = "minijinja";

/// The name of the template in errors. It has no extension, so nothing is escaped.
const NAME: &str = "chat_template";
/// The greatest length of a template, in bytes; the longest known are below 20 kB.
const MAX_LENGTH: usize = 1 << 17;
/// The greatest number of tokens in one tag: an expression is compiled recursively, in quadratic time.
const MAX_TAG_TOKENS: usize = 4096;
/// The stack on which a template is compiled, in bytes: more than any template of that length takes. Only the
/// used part takes memory.
const STACK: usize = 256 << 20;

/// A compiled template with its functions and filters.
#[derive(Debug)]
pub(in crate::chat) struct Program {
    environment: Environment<'static>,
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
}

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// If it cannot be parsed, is too large, or includes other templates.
    pub(in crate::chat) fn new(source: &str, mut environment: Environment<'static>) -> Result<Self, Error> {
        if source.len() > MAX_LENGTH {
            return Err(refused(format!("it has {} bytes, more than {MAX_LENGTH}", source.len())));
        }
        let source =
            caught(LIBRARY, || without_constant_folding(source, &environment)).map_err(refused)??;
        operations::add_to(&mut environment);
        let syntax = environment.syntax().clone();
        // Compiled templates borrow their source. A process reads few templates and keeps them, so the leak
        // is bounded.
        let source: &'static str = Box::leak(source.into_boxed_str());
        let compile = move || -> Result<_, Error> {
            let tree = parse(source, NAME, syntax)?;
            let mut generator = CodeGenerator::new(NAME, source);
            generator.compile_stmt(&tree);
            let (instructions, blocks) = generator.finish();
            let blocks = blocks.iter().map(|(name, block)| Ok((*name, guarded(block)?)));
            Ok((guarded(&instructions)?, blocks.collect::<Result<BTreeMap<_, _>, Error>>()?))
        };
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        let thread = thread.spawn(|| caught(LIBRARY, compile));
        let compiled = thread.map_err(|error| refused(format!("no thread to compile it: {error}")))?.join();
        let compiled = compiled.map_err(|_| refused("it cannot be compiled"))?;
        let (instructions, blocks) = compiled.map_err(refused)??;
        Ok(Program { environment, instructions, blocks })
    }

    /// What the template writes with these variables.
    ///
    /// # Errors
    /// If the template fails, or the fuel is used up.
    pub(in crate::chat) fn run(&self, variables: Value) -> Result<String, Error> {
        let evaluated = caught(LIBRARY, || {
            let mut text = String::new();
            let mut out = make_string_output(&mut text);
            eval(&self.environment, &self.instructions, variables, &self.blocks, &mut out, AutoEscape::None)?;
            Ok(text)
        });
        evaluated.map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))?
    }
}

fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::SyntaxError, problem.into())
}

/// The template with each product multiplied by [`operations::ONE`]. Otherwise minijinja would evaluate
/// products of constants at compile time, without fuel; a list times a billion is a short text.
fn without_constant_folding(source: &str, environment: &Environment<'_>) -> Result<String, Error> {
    let mut out = String::with_capacity(source.len());
    let (mut done, mut in_tag) = (0, 0);
    for token in tokenize(source, false, environment.syntax().clone()) {
        let (token, span) = token?;
        in_tag += 1;
        match token {
            Token::TemplateData(_) => in_tag = 0,
            Token::VariableStart | Token::BlockStart => in_tag = 1,
            Token::Mul => {
                let end = span.end_offset as usize;
                out.push_str(source.get(done..end).unwrap_or_default());
                out += " ";
                out += operations::ONE;
                out += " *";
                done = end;
            }
            _ => {}
        }
        if in_tag > MAX_TAG_TOKENS {
            return Err(refused(format!(
                "a tag at line {} has more than {MAX_TAG_TOKENS} parts",
                span.start_line
            )));
        }
    }
    out.push_str(source.get(done..).unwrap_or_default());
    Ok(out)
}

/// The instructions, with those that look into values replaced.
fn guarded(old: &Instructions<'static>) -> Result<Instructions<'static>, Error> {
    let all: Vec<&Instruction<'static>> = (0..).map_while(|at| old.get(at)).collect();
    let mut is_target = vec![false; all.len() + 1];
    for target in all.iter().filter_map(|instruction| target(instruction)) {
        if let Some(is_target) = is_target.get_mut(target as usize) {
            *is_target = true;
        }
    }
    let mut new = Instructions::new(old.name(), old.source());
    let mut end = 0;
    // The new positions of the old instructions.
    let mut places = Vec::with_capacity(all.len() + 1);
    for (at, &instruction) in all.iter().enumerate() {
        let line = old.get_line(at as u32).and_then(|line| u16::try_from(line).ok()).unwrap_or(0);
        // The constant key that the instruction before always pushes.
        let key = at.checked_sub(1).filter(|_| !is_target[at]).and_then(|before| match all[before] {
            Instruction::LoadConst(key) => Some(key),
            _ => None,
        });
        let mut group = Vec::with_capacity(4);
        guard(instruction, key, &mut group).map_err(|problem| refused(format!("line {line}: {problem}")))?;
        places.push(end);
        for instruction in group {
            end = new.add_with_line(instruction, line) + 1;
        }
    }
    places.push(end);
    for at in 0..end {
        if let Some(place) = new.get_mut(at).and_then(target_mut) {
            *place = places.get(*place as usize).copied().unwrap_or(*place);
        }
    }
    Ok(new)
}

/// Where an instruction may jump to.
fn target(instruction: &Instruction<'_>) -> Option<u32> {
    let mut instruction = instruction.clone();
    target_mut(&mut instruction).copied()
}

fn target_mut<'a>(instruction: &'a mut Instruction<'_>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// Appends what replaces an instruction. `key` is the constant that the instruction before pushes, if it
/// does.
fn guard(
    instruction: &Instruction<'static>,
    key: Option<&Value>,
    out: &mut Vec<Instruction<'static>>,
) -> Result<(), &'static str> {
    use Operation as Op;
    let splat = "it calls with * or **, which is not supported";
    let count = |n: usize| u16::try_from(n).map_err(|_| "it has a list that is too long");
    let call =
        |operation: Operation, n: u16| Instruction::ApplyFilter(operation.name(), Some(n), operation as u8);
    // The name is the last argument.
    let named = |operation: Operation, name: &'static str, n: &Option<u16>| {
        let n = n.and_then(|n| n.checked_add(1)).ok_or(splat)?;
        Ok::<_, &'static str>([Instruction::LoadConst(name.into()), call(operation, n)])
    };
    match instruction {
        Instruction::StringConcat => out.push(call(Op::Concatenate, 2)),
        Instruction::Eq => out.push(call(Op::Equal, 2)),
        Instruction::Ne => out.push(call(Op::Unequal, 2)),
        Instruction::Lt => out.push(call(Op::Less, 2)),
        Instruction::Lte => out.push(call(Op::LessOrEqual, 2)),
        Instruction::Gt => out.push(call(Op::Greater, 2)),
        Instruction::Gte => out.push(call(Op::GreaterOrEqual, 2)),
        Instruction::In => out.push(call(Op::In, 2)),
        // In a chain of comparisons.
        Instruction::CompareAndPreserve(_) => {
            out.extend([call(Op::Weigh, 2), Instruction::UnpackList(2), instruction.clone()]);
        }
        Instruction::BuildList(Some(n)) => out.push(call(Op::List, count(*n)?)),
        Instruction::BuildTuple(Some(n)) => out.push(call(Op::Tuple, count(*n)?)),
        Instruction::BuildMap(n) => out.push(call(Op::Map, count(2 * n)?)),
        // minijinja makes sums and products of lists lazily.
        Instruction::Add | Instruction::Mul => out.extend([instruction.clone(), call(Op::Materialize, 1)]),
        Instruction::Slice => out.extend([
            call(Op::Weigh, 4),
            Instruction::UnpackList(4),
            Instruction::Slice,
            call(Op::Materialize, 1),
        ]),
        Instruction::GetItem if key.is_none_or(|key| key.as_str().is_none()) => out.push(call(Op::Item, 2)),
        Instruction::ApplyFilter(name, n, _) => out.extend(named(Op::Filter, name, n)?),
        Instruction::PerformTest(name, n, _) => out.extend(named(Op::Test, name, n)?),
        Instruction::CallMethod(name, n) => out.extend(named(Op::Method, name, n)?),
        Instruction::PushLoop(_) => out.extend([call(Op::Iterate, 1), instruction.clone()]),
        // A namespace must not contain a namespace: it might contain itself, and never be freed.
        Instruction::SetAttr(_) => out.extend([
            Instruction::Swap,
            call(Op::NamespaceItem, 1),
            Instruction::Swap,
            instruction.clone(),
        ]),
        Instruction::UnpackLists(_)
        | Instruction::MergeKwargs(_)
        | Instruction::CallFunction(_, None)
        | Instruction::CallObject(None) => return Err(splat),
        Instruction::Include(_) | Instruction::LoadBlocks | Instruction::ExportLocals => {
            return Err("it includes another template");
        }
        _ => out.push(instruction.clone()),
    }
    Ok(())
}
