//! A template compiled so that nothing it does is free.
//!
//! minijinja pays with fuel for each instruction and for what instructions make, but compares, hashes and writes values
//! without asking how large they are all the way down: a list that holds itself twice, forty times over, is 2^40 items
//! to `~` and `==`, and one nested a hundred thousand deep is the end of the stack. So the instructions that look into
//! values, or make lists and the like, are replaced by filters of [`operations`], which weigh them
//! first. A template cannot name these filters: none of their names can be written in one.

use std::collections::BTreeMap;

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Token, eval, make_string_output, parse, tokenize,
};
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::operations::{self, Operation};

/// The name of the template in errors; without an ending, so that nothing is escaped.
const NAME: &str = "chat_template";
/// So long may a template be; the longest known are below 20 kB.
const LENGTH: usize = 1 << 17;
/// So many tokens may stand in one tag: an expression is compiled recursively, and in quadratic time.
const TAG_TOKENS: usize = 4096;
/// The stack on which a template is compiled, more than any of that length takes; only what is used is memory.
const STACK: usize = 256 << 20;

/// A compiled template with the functions and filters it finds.
#[derive(Debug)]
pub(super) struct Program {
    environment: Environment<'static>,
    instructions: Instructions<'static>,
    blocks: BTreeMap<&'static str, Instructions<'static>>,
}

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// If it cannot be parsed, is larger than any should be, or takes in other templates.
    pub(super) fn new(source: &str, mut environment: Environment<'static>) -> Result<Self, Error> {
        if source.len() > LENGTH {
            return Err(refused(format!("it has {} bytes, more than {LENGTH}", source.len())));
        }
        let source = unfolded(source, &environment)?;
        operations::add_to(&mut environment);
        let syntax = environment.syntax().clone();
        // What is compiled borrows the source for as long as it lives. A program reads few templates, and keeps them.
        let source: &'static str = Box::leak(source.into_boxed_str());
        let compile = move || -> Result<_, Error> {
            let tree = parse(source, NAME, syntax)?;
            let mut generator = CodeGenerator::new(NAME, source);
            generator.compile_stmt(&tree);
            let (instructions, blocks) = generator.finish();
            let blocks = blocks.iter().map(|(name, block)| Ok((*name, guarded(block)?)));
            Ok((guarded(&instructions)?, blocks.collect::<Result<BTreeMap<_, _>, Error>>()?))
        };
        let thread =
            std::thread::Builder::new().name("chat template".into()).stack_size(STACK).spawn(compile);
        let compiled = thread.map_err(|error| refused(format!("no thread to compile it: {error}")))?.join();
        let (instructions, blocks) = compiled.map_err(|_| refused("its compilation failed"))??;
        Ok(Program { environment, instructions, blocks })
    }

    /// What the template writes when it finds these variables.
    pub(super) fn run(&self, variables: Value) -> Result<String, Error> {
        let mut text = String::new();
        let mut out = make_string_output(&mut text);
        eval(&self.environment, &self.instructions, variables, &self.blocks, &mut out, AutoEscape::None)?;
        Ok(text)
    }
}

fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::SyntaxError, problem.into())
}

/// The template with each product multiplied by [`operations::ONE`]: products of constants are worked out when a
/// template is compiled, without fuel, and a list times a billion is a short text.
fn unfolded(source: &str, environment: &Environment<'_>) -> Result<String, Error> {
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
        if in_tag > TAG_TOKENS {
            return Err(refused(format!(
                "a tag at line {} has more than {TAG_TOKENS} parts",
                span.start_line
            )));
        }
    }
    out.push_str(source.get(done..).unwrap_or_default());
    Ok(out)
}

/// The instructions with what looks into values replaced.
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
    // Where the old instructions are among the new.
    let mut places = Vec::with_capacity(all.len() + 1);
    for (at, &instruction) in all.iter().enumerate() {
        let line = old.get_line(at as u32).and_then(|line| u16::try_from(line).ok()).unwrap_or(0);
        // The key that the instruction before this one always puts there.
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

/// Where an instruction may go on, other than at the next one.
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

/// What stands for an instruction; `key` is the constant that the one before puts on the stack, if there is one.
fn guard(
    instruction: &Instruction<'static>,
    key: Option<&Value>,
    out: &mut Vec<Instruction<'static>>,
) -> Result<(), &'static str> {
    use Operation as Op;
    let splat = "it calls with * or **, which is not understood";
    let count = |n: usize| u16::try_from(n).map_err(|_| "it has too long a list");
    let call =
        |operation: Operation, n: u16| Instruction::ApplyFilter(operation.name(), Some(n), operation as u8);
    // The name goes last.
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
        // Sums and products of lists are lazy.
        Instruction::Add | Instruction::Mul => out.extend([instruction.clone(), call(Op::Listed, 1)]),
        Instruction::Slice => out.extend([
            call(Op::Weigh, 4),
            Instruction::UnpackList(4),
            Instruction::Slice,
            call(Op::Listed, 1),
        ]),
        Instruction::GetItem if key.is_none_or(|key| key.as_str().is_none()) => out.push(call(Op::Item, 2)),
        Instruction::ApplyFilter(name, n, _) => out.extend(named(Op::Filter, name, n)?),
        Instruction::PerformTest(name, n, _) => out.extend(named(Op::Test, name, n)?),
        Instruction::CallMethod(name, n) => out.extend(named(Op::Method, name, n)?),
        Instruction::PushLoop(_) => out.extend([call(Op::Over, 1), instruction.clone()]),
        // A namespace may not hold a namespace: it might hold itself, and never be freed.
        Instruction::SetAttr(_) => {
            out.extend([Instruction::Swap, call(Op::Held, 1), Instruction::Swap, instruction.clone()])
        }
        Instruction::UnpackLists(_)
        | Instruction::MergeKwargs(_)
        | Instruction::CallFunction(_, None)
        | Instruction::CallObject(None) => return Err(splat),
        Instruction::Include(_) | Instruction::LoadBlocks | Instruction::ExportLocals => {
            return Err("it takes in another template");
        }
        _ => out.push(instruction.clone()),
    }
    Ok(())
}
