//! Functions that the compiler can vectorize, and the dispatch to the widest vectors that the processor has.
//!
//! The polynomials are those of Cephes (Moshier, 1989) for `exp` and of SLEEF (Shibata, 2010) for the sine.

use pulp::{Simd, WithSimd};

/// Runs `op` compiled for the widest vectors of this processor.
pub(super) fn vectorized<Op: WithSimd>(op: Op) -> Op::Output {
    static ARCH: std::sync::LazyLock<pulp::Arch> = std::sync::LazyLock::new(pulp::Arch::new);
    ARCH.dispatch(op)
}

/// How many numbers a vector of this processor has.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// `a * b + c`, fused where the processor has it; elsewhere a fused form would be a library call.
#[inline(always)]
pub(super) fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if core::any::TypeId::of::<S>() == core::any::TypeId::of::<pulp::Scalar>() {
        a * b + c
    } else {
        a.mul_add(b, c)
    }
}

/// `e^x`, 0 below -87.3 and finite above 88.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.336_54, 88.376_26);
    let n = (clamped * core::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0; // round to nearest
    let r = mul_add::<S>(n, -LN2_LO, mul_add::<S>(n, -LN2_HI, clamped));
    let mut p = 1.987_569_2e-4;
    p = mul_add::<S>(p, r, 1.398_2e-3);
    p = mul_add::<S>(p, r, 8.333_452e-3);
    p = mul_add::<S>(p, r, 4.166_579_6e-2);
    p = mul_add::<S>(p, r, 1.666_666_6e-1);
    p = mul_add::<S>(p, r, 0.5);
    let p = mul_add::<S>(p * r, r, r + 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "n is a whole number between -126 and 127"
    )]
    let scale = f32::from_bits((((n as i32) + 127) as u32) << 23);
    if x < -87.336_54 { 0.0 } else { p * scale }
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-x))
}

/// `sin(x)^2`, which has the period pi.
#[inline(always)]
pub(super) fn sine_squared<S: Simd>(x: f32) -> f32 {
    const PI_HI: f32 = 3.140_625;
    const PI_MID: f32 = 9.675_026e-4;
    const PI_LO: f32 = 1.509_957_9e-7;
    let n = (x * core::f32::consts::FRAC_1_PI + 12_582_912.0) - 12_582_912.0; // round to nearest
    let r = mul_add::<S>(
        n,
        -PI_LO,
        mul_add::<S>(n, -PI_MID, mul_add::<S>(n, -PI_HI, x)),
    ); // [-pi/2, pi/2]
    let r2 = r * r;
    let mut p = 2.608_316e-6;
    p = mul_add::<S>(p, r2, -1.981_069e-4);
    p = mul_add::<S>(p, r2, 8.333_079e-3);
    p = mul_add::<S>(p, r2, -1.666_666e-1);
    let sine = mul_add::<S>(p * r2, r, r);
    sine * sine
}

/// The error function: the complementary form of Numerical Recipes (6.2.2, fractional error 1.2e-7), and near zero,
/// where that cancels, the Maclaurin series.
#[inline(always)]
pub(super) fn erf<S: Simd>(x: f32) -> f32 {
    let a = x.abs().min(4.0);
    let t = 1.0 / mul_add::<S>(0.5, a, 1.0);
    let mut p = 0.170_872_77;
    p = mul_add::<S>(p, t, -0.822_152_2);
    p = mul_add::<S>(p, t, 1.488_515_9);
    p = mul_add::<S>(p, t, -1.135_204);
    p = mul_add::<S>(p, t, 0.278_868_07);
    p = mul_add::<S>(p, t, -0.186_288_06);
    p = mul_add::<S>(p, t, 0.096_784_18);
    p = mul_add::<S>(p, t, 0.374_091_96);
    p = mul_add::<S>(p, t, 1.000_023_7);
    p = mul_add::<S>(p, t, -1.265_512_2);
    let tail = t * exp::<S>(mul_add::<S>(-a, a, p));
    let x2 = x * x;
    let mut q = -1.0 / 1_320.0;
    q = mul_add::<S>(q, x2, 1.0 / 216.0);
    q = mul_add::<S>(q, x2, -1.0 / 42.0);
    q = mul_add::<S>(q, x2, 0.1);
    q = mul_add::<S>(q, x2, -1.0 / 3.0);
    q = mul_add::<S>(q, x2, 1.0);
    let near = core::f32::consts::FRAC_2_SQRT_PI * x * q;
    if a < 0.5 {
        near
    } else {
        (1.0 - tail).copysign(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type S = pulp::Scalar;

    fn sweep(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=20_000).map(move |i| from + (to - from) * i as f32 / 20_000.0)
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for x in sweep(-87.0, 88.0) {
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(exp::<S>(x)) - exact).abs() <= exact * 2.4e-7,
                "exp({x})"
            );
        }
        assert_eq!(exp::<S>(-200.0), 0.0);
        assert_eq!(exp::<S>(f32::NEG_INFINITY), 0.0);
        assert!(exp::<S>(200.0).is_finite());
    }

    #[test]
    fn sine_squared_holds_far_from_zero() {
        for x in sweep(-2_000.0, 2_000.0) {
            let exact = f64::from(x).sin().powi(2);
            assert!(
                (f64::from(sine_squared::<S>(x)) - exact).abs() <= 4e-7,
                "sin({x})^2"
            );
        }
    }

    #[test]
    fn erf_is_close_and_odd() {
        // erf from its Taylor series in f64, which converges over the whole range used here.
        let exact = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * core::f64::consts::FRAC_2_SQRT_PI
        };
        for x in sweep(-4.0, 4.0) {
            assert!(
                (f64::from(erf::<S>(x)) - exact(f64::from(x))).abs() <= 3e-7,
                "erf({x})"
            );
            assert_eq!(erf::<S>(-x), -erf::<S>(x));
        }
    }
}
