//! The number formats of stored tensors in one table: ggml's types, and those that only safetensors has.
//!
//! Ids, names and block sizes of the ggml types are what `ggml_type_name`, `ggml_blck_size` and
//! `ggml_type_size` of llama.cpp (October 2026) answer; missing ids belong to types that ggml removed. The
//! PyPI package `gguf` 0.19 agrees except for Q8_1, to which it gives 40 bytes, and Q2_0, which it does not
//! know. The other names are safetensors' own.

/// How a tensor's values are stored. A block is the smallest unit that can be decoded by itself.
#[allow(non_camel_case_types, clippy::upper_case_acronyms)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// 32 values: scale, 4-bit signed.
    Q4_0,
    /// 32 values: scale and minimum, 4-bit.
    Q4_1,
    /// 32 values: scale, 5-bit signed.
    Q5_0,
    /// 32 values: scale and minimum, 5-bit.
    Q5_1,
    /// 32 values: scale, 8-bit signed.
    Q8_0,
    /// 32 values with their sum, 8-bit; an activation format.
    Q8_1,
    /// 256 values in 16 sub-blocks, 2-bit.
    Q2_K,
    /// 256 values in 16 sub-blocks, 3-bit.
    Q3_K,
    /// 256 values in 8 sub-blocks, 4-bit.
    Q4_K,
    /// 256 values in 8 sub-blocks, 5-bit.
    Q5_K,
    /// 256 values in 16 sub-blocks, 6-bit.
    Q6_K,
    /// 256 values, 8-bit; an activation format.
    Q8_K,
    /// 256 values from a lattice, 2.06 bits each.
    IQ2_XXS,
    /// 256 values from a lattice, 2.31 bits each.
    IQ2_XS,
    /// 256 values from a lattice, 3.06 bits each.
    IQ3_XXS,
    /// 256 values from a lattice, 1.56 bits each.
    IQ1_S,
    /// 32 values with 4-bit codes for fixed, unevenly spaced levels.
    IQ4_NL,
    /// 256 values from a lattice, 3.44 bits each.
    IQ3_S,
    /// 256 values from a lattice, 2.56 bits each.
    IQ2_S,
    /// 256 values with 4-bit codes for fixed, unevenly spaced levels.
    IQ4_XS,
    /// Signed 8-bit integer.
    I8,
    /// Signed 16-bit integer.
    I16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE double precision.
    F64,
    /// 256 values from a lattice, 1.75 bits each.
    IQ1_M,
    /// The upper half of a single-precision float.
    BF16,
    /// 256 ternary values, 1.69 bits each.
    TQ1_0,
    /// 256 ternary values, 2.06 bits each.
    TQ2_0,
    /// 32 values of E2M1 with a shared exponent.
    MXFP4,
    /// 64 values of E2M1 with four scales.
    NVFP4,
    /// 128 values: scale, one bit each.
    Q1_0,
    /// 64 values: scale, two bits each.
    Q2_0,
    /// One byte, zero or one.
    BOOL,
    /// Unsigned 8-bit integer.
    U8,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// 4-bit float (E2M1), two to a byte.
    F4,
    /// 6-bit float, four to three bytes.
    F6_E2M3,
    /// 6-bit float, four to three bytes.
    F6_E3M2,
    /// 8-bit float, 5 exponent bits.
    F8_E5M2,
    /// 8-bit float, 4 exponent bits, no infinity.
    F8_E4M3,
    /// 8-bit power of two.
    F8_E8M0,
    /// 8-bit float, 4 exponent bits, no negative zero.
    F8_E4M3FNUZ,
    /// 8-bit float, 5 exponent bits, no negative zero.
    F8_E5M2FNUZ,
    /// Complex number of two single-precision floats.
    C64,
}

/// The constants of one type.
struct Facts {
    dtype: DType,
    name: &'static str,
    ggml_id: Option<u32>,
    block_elements: usize,
    block_bytes: usize,
    in_safetensors: bool,
}

const fn ggml(dtype: DType, name: &'static str, id: u32, block_elements: usize, block_bytes: usize) -> Facts {
    Facts { dtype, name, ggml_id: Some(id), block_elements, block_bytes, in_safetensors: false }
}

const fn both(dtype: DType, name: &'static str, id: u32, bytes: usize) -> Facts {
    Facts { dtype, name, ggml_id: Some(id), block_elements: 1, block_bytes: bytes, in_safetensors: true }
}

const fn safe(dtype: DType, name: &'static str, block_elements: usize, block_bytes: usize) -> Facts {
    Facts { dtype, name, ggml_id: None, block_elements, block_bytes, in_safetensors: true }
}

/// Every type, in the order of the enum, so that a type's row is found by its discriminant.
const TABLE: &[Facts] = &[
    both(DType::F32, "F32", 0, 4),
    both(DType::F16, "F16", 1, 2),
    ggml(DType::Q4_0, "Q4_0", 2, 32, 18),
    ggml(DType::Q4_1, "Q4_1", 3, 32, 20),
    ggml(DType::Q5_0, "Q5_0", 6, 32, 22),
    ggml(DType::Q5_1, "Q5_1", 7, 32, 24),
    ggml(DType::Q8_0, "Q8_0", 8, 32, 34),
    ggml(DType::Q8_1, "Q8_1", 9, 32, 36),
    ggml(DType::Q2_K, "Q2_K", 10, 256, 84),
    ggml(DType::Q3_K, "Q3_K", 11, 256, 110),
    ggml(DType::Q4_K, "Q4_K", 12, 256, 144),
    ggml(DType::Q5_K, "Q5_K", 13, 256, 176),
    ggml(DType::Q6_K, "Q6_K", 14, 256, 210),
    ggml(DType::Q8_K, "Q8_K", 15, 256, 292),
    ggml(DType::IQ2_XXS, "IQ2_XXS", 16, 256, 66),
    ggml(DType::IQ2_XS, "IQ2_XS", 17, 256, 74),
    ggml(DType::IQ3_XXS, "IQ3_XXS", 18, 256, 98),
    ggml(DType::IQ1_S, "IQ1_S", 19, 256, 50),
    ggml(DType::IQ4_NL, "IQ4_NL", 20, 32, 18),
    ggml(DType::IQ3_S, "IQ3_S", 21, 256, 110),
    ggml(DType::IQ2_S, "IQ2_S", 22, 256, 82),
    ggml(DType::IQ4_XS, "IQ4_XS", 23, 256, 136),
    both(DType::I8, "I8", 24, 1),
    both(DType::I16, "I16", 25, 2),
    both(DType::I32, "I32", 26, 4),
    both(DType::I64, "I64", 27, 8),
    both(DType::F64, "F64", 28, 8),
    ggml(DType::IQ1_M, "IQ1_M", 29, 256, 56),
    both(DType::BF16, "BF16", 30, 2),
    ggml(DType::TQ1_0, "TQ1_0", 34, 256, 54),
    ggml(DType::TQ2_0, "TQ2_0", 35, 256, 66),
    ggml(DType::MXFP4, "MXFP4", 39, 32, 17),
    ggml(DType::NVFP4, "NVFP4", 40, 64, 36),
    ggml(DType::Q1_0, "Q1_0", 41, 128, 18),
    ggml(DType::Q2_0, "Q2_0", 42, 64, 18),
    safe(DType::BOOL, "BOOL", 1, 1),
    safe(DType::U8, "U8", 1, 1),
    safe(DType::U16, "U16", 1, 2),
    safe(DType::U32, "U32", 1, 4),
    safe(DType::U64, "U64", 1, 8),
    safe(DType::F4, "F4", 2, 1),
    safe(DType::F6_E2M3, "F6_E2M3", 4, 3),
    safe(DType::F6_E3M2, "F6_E3M2", 4, 3),
    safe(DType::F8_E5M2, "F8_E5M2", 1, 1),
    safe(DType::F8_E4M3, "F8_E4M3", 1, 1),
    safe(DType::F8_E8M0, "F8_E8M0", 1, 1),
    safe(DType::F8_E4M3FNUZ, "F8_E4M3FNUZ", 1, 1),
    safe(DType::F8_E5M2FNUZ, "F8_E5M2FNUZ", 1, 1),
    safe(DType::C64, "C64", 1, 8),
];

impl DType {
    /// Every type.
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|facts| facts.dtype)
    }

    fn facts(self) -> &'static Facts {
        &TABLE[self as usize]
    }

    /// The name as ggml and safetensors write it, such as `F32` or `Q4_K`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The type of this name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Self> {
        TABLE.iter().find(|facts| facts.name.eq_ignore_ascii_case(name)).map(|facts| facts.dtype)
    }

    /// The type's id in a GGUF file.
    pub fn ggml_id(self) -> Option<u32> {
        self.facts().ggml_id
    }

    /// The type with this id in a GGUF file.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|facts| facts.ggml_id == Some(id)).map(|facts| facts.dtype)
    }

    /// The type's name in a safetensors file.
    pub fn safetensors_name(self) -> Option<&'static str> {
        self.facts().in_safetensors.then(|| self.facts().name)
    }

    /// The type with this exact name in a safetensors file.
    pub fn from_safetensors_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|facts| facts.in_safetensors && facts.name == name).map(|facts| facts.dtype)
    }

    /// Values in a block.
    pub fn block_elements(self) -> usize {
        self.facts().block_elements
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// The size of `elements` values in bytes; `None` unless they are whole blocks and the size fits a `u64`.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        let block = self.block_elements() as u64;
        if !elements.is_multiple_of(block) {
            return None;
        }
        (elements / block).checked_mul(self.block_bytes() as u64)
    }

    /// Whether [`crate::decode`] reads the type: every type whose weights llama.cpp reads. It leaves out Q8_1
    /// and Q8_K, which no file has, and integers, which are weights only with scales stored elsewhere.
    pub fn can_decode(self) -> bool {
        use DType::*;
        self.can_encode()
            || matches!(self, Q1_0 | Q2_0 | TQ1_0 | TQ2_0 | NVFP4 | IQ1_S | IQ1_M)
            || matches!(self, IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S)
    }

    /// Whether [`crate::encode`] writes the type.
    pub fn can_encode(self) -> bool {
        use DType::*;
        matches!(self, F32 | F16 | BF16 | F64 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0)
            || matches!(self, Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_NL | IQ4_XS | MXFP4)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (row, facts) in TABLE.iter().enumerate() {
            assert_eq!(facts.dtype as usize, row, "{}", facts.name);
            assert_eq!(format!("{:?}", facts.dtype), facts.name);
        }
    }

    #[test]
    fn names_and_ids_lead_back() {
        for dtype in DType::all() {
            assert_eq!(DType::parse(&dtype.name().to_lowercase()), Some(dtype));
            assert!(dtype.ggml_id().is_none_or(|id| DType::from_ggml_id(id) == Some(dtype)));
            assert!(
                dtype.safetensors_name().is_none_or(|name| DType::from_safetensors_name(name) == Some(dtype))
            );
        }
        assert_eq!(DType::from_ggml_id(4), None);
        assert_eq!(DType::from_safetensors_name("Q4_0"), None);
    }

    #[test]
    fn part_blocks_and_overflow_have_no_size() {
        assert_eq!(DType::Q4_K.bytes_for(512), Some(288));
        assert_eq!(DType::Q4_K.bytes_for(255), None);
        assert_eq!(DType::F64.bytes_for(u64::MAX), None);
    }
}
