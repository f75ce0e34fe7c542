//! Quarta's node.

pub mod database;
pub mod landing;
pub mod library;
pub mod sealing;
pub mod serving;
pub mod throttle;
