//! What the states of a model are made of, each kept once and known by its number: most states differ in little, and a state
//! that is a handful of numbers is quickly copied and compared.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Where something is in its table.
pub type Number = u32;

/// Values that never change. Two are the same if their `Debug` shows the same: the engine's rooms show all that they are made of.
pub struct Table<T>(RwLock<Rows<T>>);

struct Rows<T> {
    numbers: BTreeMap<u128, Number>,
    values: Vec<Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::new(Rows { numbers: BTreeMap::new(), values: Vec::new() }))
    }
}

/// Takes a text's fingerprint as it is written.
struct Print([DefaultHasher; 2]);

impl Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.iter_mut().for_each(|hasher| hasher.write(text.as_bytes()));
        Ok(())
    }
}

fn print(value: &impl Debug) -> u128 {
    let mut print = Print([DefaultHasher::new(), DefaultHasher::new()]);
    print.0[1].write_u8(1);
    write!(print, "{value:?}").expect("a fingerprint takes everything");
    let [high, low] = print.0.map(|hasher| u128::from(hasher.finish()));
    high << 64 | low
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Debug> Table<T> {
    /// The number of a value, which is kept if it is new.
    pub fn number(&self, value: T) -> Number {
        let print = print(&value);
        let mut rows = write(&self.0);
        if let Some(number) = rows.numbers.get(&print) {
            return *number;
        }
        let number = rows.values.len() as Number;
        rows.values.push(Arc::new(value));
        rows.numbers.insert(print, number);
        number
    }

    pub fn get(&self, number: Number) -> Arc<T> {
        Arc::clone(&read(&self.0).values[number as usize])
    }
}

/// What came of it when this met that: found once, as the engine is a function of its inputs.
pub struct Memo<K, T>(RwLock<BTreeMap<K, Arc<T>>>);

impl<K, T> Default for Memo<K, T> {
    fn default() -> Self {
        Self(RwLock::new(BTreeMap::new()))
    }
}

impl<K: Ord + Copy, T> Memo<K, T> {
    pub fn get_or(&self, key: K, find: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = read(&self.0).get(&key) {
            return Arc::clone(known);
        }
        let found = Arc::new(find());
        Arc::clone(write(&self.0).entry(key).or_insert(found))
    }
}

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Numbers(Vec<u64>);

impl Numbers {
    pub fn has(&self, number: Number) -> bool {
        let word = self.0.get(number as usize / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub fn add(&mut self, number: Number) {
        let word = number as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    pub fn remove(&mut self, number: Number) {
        if self.has(number) {
            self.0[number as usize / 64] &= !(1 << (number % 64));
            while self.0.last() == Some(&0) {
                self.0.pop();
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Number> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(at as Number * 64 + bit)
            })
        })
    }
}
