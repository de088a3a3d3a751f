//! The tensors of a kept result.

use curmerge_formats::{DType, NewSafeTensor, SafeTensors};
use half::bf16;

/// A number that a result may hold.
pub trait Element: Copy + 'static {
    /// How it is stored.
    const DTYPE: DType;
    /// Appends its bytes, little-endian.
    fn append_to(self, bytes: &mut Vec<u8>);
    /// From its bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! elements {
    ($($kind:ty: $dtype:ident),*) => {$(
        impl Element for $kind {
            const DTYPE: DType = DType::$dtype;

            fn append_to(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    )*};
}

elements! { u32: U32, f32: F32, f64: F64, bf16: BF16 }

impl Element for bool {
    const DTYPE: DType = DType::BOOL;

    fn append_to(self, bytes: &mut Vec<u8>) {
        bytes.push(self.into());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

/// A tensor of a kept result. Its bytes are made when they are written.
pub struct Part<'a> {
    pub(super) tensor: NewSafeTensor,
    pub(super) bytes: Box<dyn Fn() -> Vec<u8> + 'a>,
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tensor.fmt(f)
    }
}

impl<'a> Part<'a> {
    /// A tensor of this name and shape with these numbers, row-major.
    pub fn new<T: Element>(name: impl Into<String>, shape: &[usize], numbers: &'a [T]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), numbers.len());
        let shape = shape.iter().map(|&length| length as u64).collect();
        let bytes = move || {
            let mut bytes = Vec::with_capacity(size_of_val(numbers));
            numbers.iter().for_each(|number| number.append_to(&mut bytes));
            bytes
        };
        Self { tensor: NewSafeTensor { name: name.into(), dtype: T::DTYPE, shape }, bytes: Box::new(bytes) }
    }
}

/// The numbers of a tensor of this type and name. Where `shape` is given, the tensor must have it.
pub fn numbers<T: Element>(file: &SafeTensors, name: &str, shape: Option<&[usize]>) -> Option<Vec<T>> {
    let tensor = file.tensor(name).filter(|tensor| tensor.dtype == T::DTYPE)?;
    let lengths = |shape: &[usize]| shape.iter().map(|&length| length as u64).collect::<Vec<_>>();
    if shape.is_some_and(|shape| lengths(shape) != tensor.shape) {
        return None;
    }
    file.data(tensor).chunks_exact(size_of::<T>()).map(T::read).collect()
}
