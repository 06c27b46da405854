//! The choice of experts.

mod alone;
mod together;

use cubecl::prelude::*;

use crate::{Buffer, Matrix, On, Units};

/// The experts of each row, best first, of equal ones that of the lowest number.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Expert numbers `[rows, top_k]`, i32.
    pub ids: Buffer,
    /// Their shares `[rows, top_k]`, of the type of the logits.
    pub weights: Buffer,
    /// Experts of a row.
    pub top_k: usize,
}

/// Softmax of each row of `logits` `[rows, experts]`, the `top_k` largest, divided by their sum with `normalize`.
///
/// # Panics
/// When `top_k` is larger than 32 or than the number of experts.
#[must_use]
pub fn route<'a>(on: impl Into<On<'a>>, logits: &Matrix, top_k: usize, normalize: bool) -> Routes {
    let On { client, units } = on.into();
    assert!(
        top_k <= logits.width.min(together::UNITS),
        "a row cannot choose {top_k} of {} experts",
        logits.width
    );
    let count = logits.rows * top_k;
    let routes = Routes {
        ids: Buffer::empty(client, i32::elem_type_native(), count),
        weights: Buffer::empty(client, logits.buffer.elem, count),
        top_k,
    };
    match units {
        Units::Together => together::launch(client, logits, &routes, normalize),
        Units::Alone => alone::launch(client, logits, &routes, normalize),
    }
    routes
}
