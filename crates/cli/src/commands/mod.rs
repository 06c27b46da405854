//! One file a command.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod doctor;
pub(crate) mod inspect;
mod load;
pub(crate) mod quantize;
pub(crate) mod run;
