//! `java.util.Random`, bit for bit: the literature's workload is drawn from it, so ours must be too.
//!
//! The algorithm is in the class's documentation (Java SE API): a linear congruential generator of 48 bits
//! (Knuth, TAOCP 2, 3.2.1), and Marsaglia's polar method for the normal distribution.

use super::strict;

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;

/// A generator as `new java.util.Random(seed)` makes one.
#[derive(Clone, Debug)]
pub struct JavaRandom {
    state: u64,
    /// The polar method yields two values at a time; the second waits here for the next call.
    next_gaussian: Option<f64>,
}

impl JavaRandom {
    /// Java's seed is a signed number; only its low 48 bits count.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: (seed ^ MULTIPLIER) & MASK, next_gaussian: None }
    }

    fn next(&mut self, bits: u32) -> i32 {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) & MASK;
        // The cast keeps the low 32 bits, as Java's `(int)` does.
        (self.state >> (48 - bits)) as i32
    }

    /// `nextDouble()`: uniform in [0, 1), of 53 bits.
    pub fn next_double(&mut self) -> f64 {
        let high = self.next(26) as u64;
        let low = self.next(27) as u64;
        ((high << 27) + low) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// `nextInt(bound)`: uniform in [0, bound).
    ///
    /// # Panics
    /// When the bound is zero or does not fit Java's `int`.
    pub fn next_int(&mut self, bound: u32) -> u32 {
        let bound = i32::try_from(bound).expect("Java's int");
        assert!(bound > 0, "the bound must be positive");
        if bound & -bound == bound {
            return ((i64::from(bound) * i64::from(self.next(31))) >> 31) as u32;
        }
        loop {
            let bits = self.next(31);
            let value = bits % bound;
            // Overflow means that `bits` is in the last, incomplete stretch of length `bound`.
            if bits.wrapping_sub(value).wrapping_add(bound - 1) >= 0 {
                return value as u32;
            }
        }
    }

    /// `nextGaussian()`: normal, mean 0, deviation 1.
    pub fn next_gaussian(&mut self) -> f64 {
        if let Some(value) = self.next_gaussian.take() {
            return value;
        }
        loop {
            let first = 2.0 * self.next_double() - 1.0;
            let second = 2.0 * self.next_double() - 1.0;
            let square = first * first + second * second;
            if square < 1.0 && square != 0.0 {
                let multiplier = (-2.0 * strict::ln(square) / square).sqrt();
                self.next_gaussian = Some(second * multiplier);
                return first * multiplier;
            }
        }
    }

    /// Exponential with this rate (per second), in seconds, as the literature's injector draws it.
    pub fn next_exponential(&mut self, rate: f64) -> f64 {
        -strict::ln(1.0 - self.next_double()) / rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values were printed by a Java virtual machine; gaussians as `doubleToLongBits`.
    #[test]
    fn the_values_are_javas() {
        let mut random = JavaRandom::new(42);
        assert_eq!([(); 5].map(|()| random.next_int(10)), [0, 3, 8, 4, 0]);
        assert_eq!(JavaRandom::new(-7_i64 as u64).next_int(1280), 582);
        let mut random = JavaRandom::new(42);
        let bits = [(); 3].map(|()| random.next_gaussian().to_bits() as i64);
        assert_eq!(bits, [4607821503525903750, 4606456510138157127, -4616641179245592382]);
    }

    #[test]
    fn the_second_gaussian_comes_from_the_same_pair() {
        let mut random = JavaRandom::new(7);
        random.next_gaussian();
        let state = random.state;
        random.next_gaussian();
        assert_eq!(random.state, state, "nothing was drawn");
    }
}
