//! Functions whose precision drivers do not promise, in f32.

use cubecl::prelude::*;

/// `x / (1 + e^-x)`.
#[cube]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0f32 + (-x).exp())
}

/// `1 / (1 + e^-x)`.
#[cube]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + (-x).exp())
}

/// `sin(x)^2`, which has the period pi; the polynomial is SLEEF's (Shibata, 2010).
#[cube]
pub(crate) fn sine_squared(x: f32) -> f32 {
    let n = (x * comptime!(core::f32::consts::FRAC_1_PI) + 0.5f32).floor();
    // pi in three parts, so that the first products are exact
    let r = x - n * 3.140_625f32;
    let r = r - n * 9.675_026e-4f32;
    let r = r - n * 1.509_957_9e-7f32;
    let r2 = r * r;
    let p = 2.608_316e-6f32 * r2 - 1.981_069e-4f32;
    let p = p * r2 + 8.333_079e-3f32;
    let p = p * r2 - 1.666_666e-1f32;
    let sine = p * r2 * r + r;
    sine * sine
}

/// The error function: the complementary form of Numerical Recipes (6.2.2, fractional error 1.2e-7), and near zero,
/// where that cancels, the Maclaurin series.
#[cube]
pub(crate) fn erf(x: f32) -> f32 {
    let a = select(x.abs() < 4.0f32, x.abs(), 4.0f32);
    let t = 1.0f32 / (0.5f32 * a + 1.0f32);
    let p = 0.170_872_77f32 * t - 0.822_152_2f32;
    let p = p * t + 1.488_515_9f32;
    let p = p * t - 1.135_204f32;
    let p = p * t + 0.278_868_07f32;
    let p = p * t - 0.186_288_06f32;
    let p = p * t + 0.096_784_18f32;
    let p = p * t + 0.374_091_96f32;
    let p = p * t + 1.000_023_7f32;
    let p = p * t - 1.265_512_2f32;
    let tail = t * (p - a * a).exp();
    let x2 = x * x;
    let q = x2 / -1_320.0f32 + 1.0f32 / 216.0f32;
    let q = q * x2 - 1.0f32 / 42.0f32;
    let q = q * x2 + 0.1f32;
    let q = q * x2 - 1.0f32 / 3.0f32;
    let q = q * x2 + 1.0f32;
    let near = comptime!(core::f32::consts::FRAC_2_SQRT_PI) * x * q;
    let far = select(x < 0.0f32, tail - 1.0f32, 1.0f32 - tail);
    select(a < 0.5f32, near, far)
}

/// The hyperbolic tangent, from the exponential of a negative number, which cannot overflow.
#[cube]
pub(crate) fn tanh(x: f32) -> f32 {
    let e = (x.abs() * -2.0f32).exp();
    let t = (1.0f32 - e) / (1.0f32 + e);
    select(x < 0.0f32, -t, t)
}
