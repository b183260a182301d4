//! What members subscribe to beyond names of topics.

mod quoted;
mod regex;

pub use regex::{PatternError, TopicPattern};
