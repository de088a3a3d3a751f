//! CPU dispatch: detects once which instructions the processor has, and is the only place from which code
//! compiled for more than the baseline is entered. (Matrix products choose their micro-kernel by the same
//! level.)

use std::sync::OnceLock;

/// The instruction sets of this architecture that have kernels. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// What the program was compiled for: any processor of the architecture.
    Portable,
    /// Products by NEON. Every aarch64 processor has it, and vector loops use it at any level.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// AVX2 with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Products of bfloat16 pairs, on AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512bf16,
}

/// The environment variable that selects a lower level than the processor's.
const VARIABLE: &str = "CURMERGE_CPU";

static CHOSEN: OnceLock<Cpu> = OnceLock::new();

impl Cpu {
    /// Every level of this architecture, lowest first.
    pub const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(target_arch = "aarch64")]
        Self::Neon,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512bf16,
    ];

    /// The level that this process computes with.
    pub fn current() -> Self {
        *CHOSEN.get_or_init(|| from_variable().ok().flatten().unwrap_or_else(Self::detected))
    }

    /// Computes with the level `wanted`, else with that of the environment variable `CURMERGE_CPU`, else with
    /// the highest. The choice holds for the whole process and must be made before any computation.
    ///
    /// # Errors
    /// What is wrong with the choice: the processor does not have the level, no level has that name, or
    /// computation has begun.
    pub fn choose(wanted: Option<Self>) -> Result<(), String> {
        let level = match wanted {
            Some(level) => level.if_available()?,
            None => from_variable()?.unwrap_or_else(Self::detected),
        };
        if *CHOSEN.get_or_init(|| level) == level { Ok(()) } else { Err("computation has begun".into()) }
    }

    /// The highest level of this processor.
    pub fn detected() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
            if avx512 && has!("avx512bf16") {
                return Cpu::Avx512bf16;
            }
            if avx512 {
                return Cpu::Avx512;
            }
            if avx2 {
                return Cpu::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        let every = Cpu::Neon;
        #[cfg(not(target_arch = "aarch64"))]
        let every = Cpu::Portable;
        every
    }

    /// The levels that this processor has, lowest first.
    #[cfg(test)]
    pub(super) fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|level| *level <= Self::detected())
    }

    fn if_available(self) -> Result<Self, String> {
        let highest = Self::detected();
        if self <= highest {
            return Ok(self);
        }
        Err(format!("this processor has no {}; its highest level is {}", self.name(), highest.name()))
    }

    /// The name on the command line and in `CURMERGE_CPU`.
    pub fn name(self) -> &'static str {
        match self {
            Cpu::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Cpu::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512bf16 => "avx512bf16",
        }
    }

    /// Runs `work` as compiled for this level, so that its loops use the level's instructions. The results
    /// are the same bytes at every level, since Rust neither fuses nor reorders arithmetic.
    ///
    /// # Panics
    /// When the processor does not have this level.
    #[inline]
    pub(crate) fn dispatch<W: Multiversion>(self, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        {
            assert!(self <= Self::detected());
            #[allow(unsafe_code)]
            match self {
                // SAFETY: the assertion shows that the processor has AVX-512.
                Cpu::Avx512 | Cpu::Avx512bf16 => return unsafe { with_avx512(work) },
                // SAFETY: the assertion shows that the processor has AVX2 and FMA.
                Cpu::Avx2 => return unsafe { with_avx2(work) },
                Cpu::Portable => {}
            }
        }
        work.run()
    }
}

/// Code to compile once for each level (function multiversioning). A closure would not do: the compiler may
/// choose not to inline it, and then compiles it for the baseline alone.
pub(crate) trait Multiversion {
    /// The result.
    type Output;
    /// Runs the code; must be `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<W: Multiversion>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<W: Multiversion>(work: W) -> W::Output {
    work.run()
}

/// Whether Intel made the processor.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_of_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// The level that the environment variable asks for.
fn from_variable() -> Result<Option<Cpu>, String> {
    let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else { return Ok(None) };
    let value = value.to_string_lossy();
    let level = Cpu::ALL.iter().find(|level| value.eq_ignore_ascii_case(level.name()));
    let level = level.ok_or_else(|| format!("{VARIABLE}: there is no level '{value}'"))?;
    level.if_available().map(Some).map_err(|problem| format!("{VARIABLE}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_below_the_processors_is_available_and_one_above_is_not() {
        assert!(Cpu::available().all(|level| level.if_available() == Ok(level)));
        assert_eq!(Cpu::available().last(), Some(Cpu::detected()));
        for level in Cpu::ALL.iter().filter(|level| **level > Cpu::detected()) {
            assert!(level.if_available().unwrap_err().contains("this processor has no"));
        }
    }
}
