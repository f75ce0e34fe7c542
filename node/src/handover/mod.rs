//! Handing files over: who gets a file, how its owner asks until that one has it, and what the next owner makes of an
//! offer. Pure.
//!
//! 1. [`draw`]: among whom a leaving branch's file is drawn, and who is drawn.
//! 2. [`asking`]: the owner's side: when to ask again, and when to give up.
//! 3. [`taking`]: the next owner's side: whether an offer is genuine and in time, and the record that it signs.
//!
//! What makes a hand-over safe is in the record: a link that the owner so far has signed, and a record that the next one
//! signs over it ([`quarta_protocols::records`]). The next owner signs only once it has read a whole copy to its last
//! byte, and until then the file belongs to whom it belonged. So there is no moment at which nobody, or two, own it,
//! whoever goes away half-way.

pub mod asking;
pub mod draw;
pub mod taking;

#[cfg(test)]
mod tests;
