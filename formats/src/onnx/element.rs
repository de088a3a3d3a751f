//! The element types of ONNX tensors, in one table.

use crate::dtype::DType;

/// `TensorProto.DataType`, whose numbers these are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ElementType(u8);

/// The field that holds the elements of a tensor without raw data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TypedField {
    Float,
    Int32,
    String,
    Int64,
    Double,
    Uint64,
}

impl TypedField {
    /// The field's number in `TensorProto`.
    pub(super) fn number(self) -> u32 {
        match self {
            TypedField::Float => 4,
            TypedField::Int32 => 5,
            TypedField::String => 6,
            TypedField::Int64 => 7,
            TypedField::Double => 10,
            TypedField::Uint64 => 11,
        }
    }

    /// Its name in onnx.proto.
    pub(super) fn name(self) -> &'static str {
        match self {
            TypedField::Float => "float_data",
            TypedField::Int32 => "int32_data",
            TypedField::String => "string_data",
            TypedField::Int64 => "int64_data",
            TypedField::Double => "double_data",
            TypedField::Uint64 => "uint64_data",
        }
    }

    /// The field with this number.
    pub(super) fn of(number: u32) -> Option<Self> {
        use TypedField::*;
        [Float, Int32, String, Int64, Double, Uint64].into_iter().find(|field| field.number() == number)
    }
}

/// The properties of a type. `bits` is 0 for texts.
struct Facts {
    name: &'static str,
    bits: u64,
    field: TypedField,
    dtype: Option<DType>,
}

const fn row(name: &'static str, bits: u64, field: TypedField, dtype: Option<DType>) -> Facts {
    Facts { name, bits, field, dtype }
}

/// Starting at number 1.
const TABLE: &[Facts] = &[
    row("FLOAT", 32, TypedField::Float, Some(DType::F32)),
    row("UINT8", 8, TypedField::Int32, Some(DType::U8)),
    row("INT8", 8, TypedField::Int32, Some(DType::I8)),
    row("UINT16", 16, TypedField::Int32, Some(DType::U16)),
    row("INT16", 16, TypedField::Int32, Some(DType::I16)),
    row("INT32", 32, TypedField::Int32, Some(DType::I32)),
    row("INT64", 64, TypedField::Int64, Some(DType::I64)),
    row("STRING", 0, TypedField::String, None),
    row("BOOL", 8, TypedField::Int32, Some(DType::BOOL)),
    row("FLOAT16", 16, TypedField::Int32, Some(DType::F16)),
    row("DOUBLE", 64, TypedField::Double, Some(DType::F64)),
    row("UINT32", 32, TypedField::Uint64, Some(DType::U32)),
    row("UINT64", 64, TypedField::Uint64, Some(DType::U64)),
    row("COMPLEX64", 64, TypedField::Float, Some(DType::C64)),
    row("COMPLEX128", 128, TypedField::Double, None),
    row("BFLOAT16", 16, TypedField::Int32, Some(DType::BF16)),
    row("FLOAT8E4M3FN", 8, TypedField::Int32, Some(DType::F8_E4M3)),
    row("FLOAT8E4M3FNUZ", 8, TypedField::Int32, Some(DType::F8_E4M3FNUZ)),
    row("FLOAT8E5M2", 8, TypedField::Int32, Some(DType::F8_E5M2)),
    row("FLOAT8E5M2FNUZ", 8, TypedField::Int32, Some(DType::F8_E5M2FNUZ)),
    row("UINT4", 4, TypedField::Int32, None),
    row("INT4", 4, TypedField::Int32, None),
    row("FLOAT4E2M1", 4, TypedField::Int32, Some(DType::F4)),
    row("FLOAT8E8M0", 8, TypedField::Int32, Some(DType::F8_E8M0)),
    row("UINT2", 2, TypedField::Int32, None),
    row("INT2", 2, TypedField::Int32, None),
    row("FLOAT6E2M3", 6, TypedField::Int32, Some(DType::F6_E2M3)),
    row("FLOAT6E3M2", 6, TypedField::Int32, Some(DType::F6_E3M2)),
];

#[allow(missing_docs)]
impl ElementType {
    pub const FLOAT: Self = ElementType(1);
    pub const UINT8: Self = ElementType(2);
    pub const INT8: Self = ElementType(3);
    pub const INT32: Self = ElementType(6);
    pub const INT64: Self = ElementType(7);
    pub const STRING: Self = ElementType(8);
    pub const BOOL: Self = ElementType(9);
    pub const FLOAT16: Self = ElementType(10);
    pub const DOUBLE: Self = ElementType(11);
    pub const BFLOAT16: Self = ElementType(16);
    pub const UINT4: Self = ElementType(21);
    pub const INT4: Self = ElementType(22);
}

impl ElementType {
    /// All types.
    pub fn all() -> impl Iterator<Item = ElementType> {
        (1..=TABLE.len() as u8).map(ElementType)
    }

    /// The type with this number.
    pub fn from_id(id: i64) -> Option<Self> {
        u8::try_from(id).ok().filter(|&id| (1..=TABLE.len()).contains(&usize::from(id))).map(ElementType)
    }

    /// Its number.
    pub fn id(self) -> i64 {
        i64::from(self.0)
    }

    fn facts(self) -> &'static Facts {
        &TABLE[usize::from(self.0) - 1]
    }

    /// Its name in onnx.proto, such as `FLOAT16`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The same type by this crate's name for it, if it has one: that of the type with the same bytes in
    /// other containers.
    pub fn dtype(self) -> Option<DType> {
        self.facts().dtype
    }

    /// The type with the same bytes as `dtype`.
    pub fn from_dtype(dtype: DType) -> Option<Self> {
        Self::all().find(|element| element.dtype() == Some(dtype))
    }

    /// Bytes that `elements` values take as raw data. A byte holds two 4-bit or four 2-bit values, the first
    /// lowest, so the last byte may be partly filled. `None` for texts and for more than a `u64` holds.
    pub fn bytes_for(self, elements: u64) -> Option<u64> {
        match self.facts().bits {
            0 => None,
            bits => u64::try_from((u128::from(bits) * u128::from(elements)).div_ceil(8)).ok(),
        }
    }

    /// The field for elements that are not raw data.
    pub(super) fn field(self) -> TypedField {
        self.facts().field
    }

    /// Entries of that field that `elements` values take, and bytes of raw data per entry. 6-bit floats take
    /// one entry each and are packed only as raw data: for them the second number is 0.
    pub(super) fn entries_for(self, elements: u64) -> Option<(u64, usize)> {
        match (self.field(), self.facts().bits) {
            (TypedField::String, _) => Some((elements, 0)),
            (_, 6) => Some((elements, 0)),
            (_, bits @ 2..=4) => Some((elements.div_ceil(8 / bits), 1)),
            // Complex numbers are two entries.
            (TypedField::Float, 64) => Some((elements.checked_mul(2)?, 4)),
            (TypedField::Double, 128) => Some((elements.checked_mul(2)?, 8)),
            (_, bits) => Some((elements, bits as usize / 8)),
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_have_the_names_of_their_numbers() {
        let named = [
            (ElementType::FLOAT, "FLOAT"),
            (ElementType::UINT8, "UINT8"),
            (ElementType::INT8, "INT8"),
            (ElementType::INT32, "INT32"),
            (ElementType::INT64, "INT64"),
            (ElementType::STRING, "STRING"),
            (ElementType::BOOL, "BOOL"),
            (ElementType::FLOAT16, "FLOAT16"),
            (ElementType::DOUBLE, "DOUBLE"),
            (ElementType::BFLOAT16, "BFLOAT16"),
            (ElementType::UINT4, "UINT4"),
            (ElementType::INT4, "INT4"),
        ];
        for (element, name) in named {
            assert_eq!(element.name(), name);
        }
        assert_eq!([0, 29, -1, 257].map(ElementType::from_id), [None; 4]);
    }

    #[test]
    fn bytes_are_those_of_the_same_type_elsewhere() {
        for element in ElementType::all() {
            if let Some(dtype) = element.dtype() {
                assert_eq!(element.bytes_for(24), dtype.bytes_for(24), "{element}");
                assert_eq!(ElementType::from_dtype(dtype), Some(element));
            }
        }
        assert_eq!(ElementType::INT4.bytes_for(3), Some(2));
        assert_eq!(ElementType::DOUBLE.bytes_for(u64::MAX), None);
        assert_eq!(ElementType::STRING.bytes_for(1), None);
    }
}
