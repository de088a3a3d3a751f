//! Which micro-kernel a processor uses.

use super::micro_kernel::MicroKernel;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::kernels::cpu::Cpu;
use crate::kernels::precision::Precision;

/// The fastest micro-kernel of this level. Where the processor has no bfloat16 products, the f32 kernel
/// serves both precisions.
///
/// # Panics
/// When the processor does not have this level.
pub(super) fn micro_kernel(cpu: Cpu, precision: Precision) -> &'static MicroKernel {
    assert!(cpu <= Cpu::detected());
    match (cpu, precision) {
        #[cfg(target_arch = "x86_64")]
        (Cpu::Avx512bf16, Precision::Bf16) => &x86::AVX512_BF16,
        #[cfg(target_arch = "x86_64")]
        (Cpu::Avx512bf16 | Cpu::Avx512, _) => &x86::AVX512,
        #[cfg(target_arch = "x86_64")]
        (Cpu::Avx2, _) => &x86::AVX2,
        #[cfg(target_arch = "aarch64")]
        (Cpu::Neon, _) => &neon::F32,
        (Cpu::Portable, _) => &portable::F32,
    }
}

/// The micro-kernel that this process uses for products of this precision.
pub(super) fn current(precision: Precision) -> &'static MicroKernel {
    micro_kernel(Cpu::current(), precision)
}

/// Whether products of this precision round their operands to bfloat16 on this processor.
pub fn rounds_to_bf16(precision: Precision) -> bool {
    current(precision).values_per_slot == 2
}
