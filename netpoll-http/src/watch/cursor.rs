//! A line while it is written: room that is there, and what is left of it.
//!
//! A line has many short pieces, most of them known when this is compiled: those are copied as a few words each, without a look at who owns
//! the room. What does not fit is left out, and so is all behind it.
//!
//! Invariant: a line is whole, or [`written`] says that it is not. What lies behind it in the room may have changed.

use std::fmt;

/// The digits of the numbers that most lines have, and how many they are.
static SHORT: [([u8; 3], u8); 1000] = {
    let (mut texts, mut number) = ([([0; 3], 0); 1000], 0);
    while number < 1000 {
        let [hundreds, tens, ones] = [number / 100, number / 10 % 10, number % 10];
        let [hundreds, tens, ones] = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        texts[number] = match number {
            0..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            _ => ([hundreds, tens, ones], 3),
        };
        number += 1;
    }
    texts
};

/// Where the next piece goes.
pub struct Cursor<'r> {
    left: &'r mut [u8],
    is_short: bool,
}

/// Has something written into this room. How many bytes it is, if there is room for them.
#[inline(always)]
pub fn written(room: &mut [u8], write: impl FnOnce(&mut Cursor<'_>)) -> Option<usize> {
    let all = room.len();
    let mut cursor = Cursor { left: room, is_short: false };
    write(&mut cursor);
    if cursor.is_short { None } else { Some(all - cursor.left.len()) }
}

impl<'r> Cursor<'r> {
    /// Appends so many bytes as are known when this is compiled.
    #[inline(always)]
    pub fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        match std::mem::take(&mut self.left).split_first_chunk_mut() {
            Some((place, left)) => {
                *place = *bytes;
                self.left = left;
            }
            None => self.runs_short(),
        }
    }

    /// Appends the first so many of these, of which all are copied.
    #[inline(always)]
    pub fn put_some<const N: usize>(&mut self, bytes: &[u8; N], count: usize) {
        let left = std::mem::take(&mut self.left);
        match left.first_chunk_mut() {
            Some(place) => {
                *place = *bytes;
                self.left = &mut left[count.min(N)..];
            }
            None => self.runs_short(),
        }
    }

    /// Appends any text.
    #[inline(always)]
    pub fn text(&mut self, text: &[u8]) {
        match std::mem::take(&mut self.left).split_at_mut_checked(text.len()) {
            Some((place, left)) => {
                place.copy_from_slice(text);
                self.left = left;
            }
            None => self.runs_short(),
        }
    }

    /// Appends what `copy` puts into a place of so many bytes, if it says that it has. If it has not, nothing is appended, and the answer is no.
    #[inline(always)]
    pub fn text_if(&mut self, bytes: usize, copy: impl FnOnce(&mut [u8]) -> bool) -> bool {
        match self.left.get_mut(..bytes) {
            Some(place) => {
                let is_taken = copy(place);
                if is_taken {
                    self.left = &mut std::mem::take(&mut self.left)[bytes..];
                }
                is_taken
            }
            None => {
                self.runs_short();
                true
            }
        }
    }

    /// Appends a number.
    #[inline(always)]
    pub fn number(&mut self, number: u64) {
        match usize::try_from(number).ok().and_then(|number| SHORT.get(number)) {
            Some((digits, count)) => self.put_some(digits, usize::from(*count)),
            None => self.text(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    /// Takes over from another one, which is given back at the end: what is in no place that others know lies in registers.
    #[inline(always)]
    pub fn go_on(&mut self, write: impl FnOnce(&mut Cursor<'r>)) {
        let mut other = Cursor { left: std::mem::take(&mut self.left), is_short: self.is_short };
        write(&mut other);
        *self = other;
    }

    /// Nothing has room any more.
    #[inline(always)]
    fn runs_short(&mut self) {
        self.left = &mut [];
        self.is_short = true;
    }
}

impl fmt::Write for Cursor<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text.as_bytes());
        Ok(())
    }
}
