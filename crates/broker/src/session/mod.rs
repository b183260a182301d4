//! The broker's conversation with the active controller, and what it learns from it: the image of the
//! cluster.

mod image_store;

pub use image_store::{ImageBehind, ImageStore};
