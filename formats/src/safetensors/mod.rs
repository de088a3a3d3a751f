//! stub
mod index;
mod read;
mod write;
pub use index::shard_index;
pub use read::{SafeTensor, SafeTensors};
pub use write::{NewSafeTensor, SafeTensorsLayout};
