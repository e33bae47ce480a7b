//! Logarithm and sine from the four operations alone, so that a workload is the same on every machine.
//!
//! `f64::ln` and `f64::sin` call the platform's mathematical library, whose last bit differs between
//! versions; one bit moves an event by a microsecond, and then two machines disagree. Java's generator
//! prescribes fdlibm's logarithm anyway (`StrictMath`).

use std::f64::consts::{PI, TAU};

/// Natural logarithm of a positive normal number, by the steps of fdlibm's `e_log.c` (Sun, 1993): x is
/// 2^k (1+f) with 1+f near 1, and log(1+f) a polynomial in s = f/(2+f). Error below one unit in the last place.
#[must_use]
pub fn ln(x: f64) -> f64 {
    /// ln 2 in two parts: the first has trailing zeros, so that k times it is exact.
    const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    debug_assert!(x.is_normal() && x > 0.0, "ln of {x}");
    let bits = x.to_bits();
    let high = (bits >> 32) as i64 & 0xf_ffff;
    // One if the fraction is above the square root of two: then half of it is nearer to 1.
    let halve = (high + 0x9_5f64) >> 20 & 1;
    let k = ((bits >> 52) as i64 - 1023 + halve) as f64;
    let fraction = (bits & 0x000f_ffff_ffff_ffff) | ((1023 - halve) as u64) << 52;
    let f = f64::from_bits(fraction) - 1.0;
    let s = f / (2.0 + f);
    let series = series(s * s);
    if (high - 0x6_147a) | (0x6_b851 - high) > 0 {
        let half_square = 0.5 * f * f;
        k * LN2_HIGH - ((half_square - (s * (half_square + series) + k * LN2_LOW)) - f)
    } else {
        k * LN2_HIGH - ((s * (f - series) - k * LN2_LOW) - f)
    }
}

/// fdlibm's minimax polynomial Lg1..Lg7 for (log(1+f) - s(f - ..))/s on s² in [0, 0.0294].
fn series(z: f64) -> f64 {
    const LG: [f64; 7] = [
        f64::from_bits(0x3fe5_5555_5555_5593),
        f64::from_bits(0x3fd9_9999_9997_fa04),
        f64::from_bits(0x3fd2_4924_9422_9359),
        f64::from_bits(0x3fcc_71c5_1d8e_78af),
        f64::from_bits(0x3fc7_4664_96cb_03de),
        f64::from_bits(0x3fc3_9a09_d078_c69f),
        f64::from_bits(0x3fc2_f112_df3e_5244),
    ];
    let w = z * z;
    let odd = z * (LG[0] + w * (LG[2] + w * (LG[4] + w * LG[6])));
    let even = w * (LG[1] + w * (LG[3] + w * LG[5]));
    odd + even
}

/// Sine of `turns` full turns, by Bhaskara's formula (7th century): within 0.0017, which is far less than
/// the noise that a day's load carries.
#[must_use]
pub fn sine_of_turns(turns: f64) -> f64 {
    let angle = (turns - turns.floor()) * TAU;
    let (angle, sign) = if angle > PI { (angle - PI, -1.0) } else { (angle, 1.0) };
    let product = angle * (PI - angle);
    sign * 16.0 * product / (5.0 * PI * PI - 4.0 * product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_agrees_with_the_platforms_to_the_last_bits() {
        let mut x = 1e-17;
        while x < 10.0 {
            let (ours, theirs) = (ln(x), x.ln());
            let units = (ours.to_bits() as i64 - theirs.to_bits() as i64).abs();
            assert!(units <= 2, "ln({x}): {ours} {theirs}");
            x *= 1.037;
        }
    }

    #[test]
    fn the_sine_is_near() {
        for step in -40..=80 {
            let turns = f64::from(step) / 40.0;
            assert!((sine_of_turns(turns) - (turns * TAU).sin()).abs() < 0.0017, "{turns}");
        }
    }
}
