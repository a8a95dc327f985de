//! The mask of a client's payload (RFC 6455 section 5.3): four bytes, over and over.
//!
//! Invariant: a [`Mask`] stands at the byte of its key that is next, so that a payload may be masked or unmasked in pieces of
//! any length. Works in place, eight bytes at a time, which the compiler makes into vectors: 1 KiB is one instruction for six bytes.

/// A masking key, and how far it is used up. Masking twice is unmasking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    /// The key from its next byte on, the first byte lowest.
    key: u32,
}

impl Mask {
    /// At the first byte of a payload.
    #[inline]
    pub const fn new(key: [u8; 4]) -> Mask {
        Mask { key: u32::from_le_bytes(key) }
    }

    /// At a later byte of the payload.
    #[inline]
    pub const fn at(key: [u8; 4], offset: usize) -> Mask {
        Mask { key: u32::from_le_bytes(key).rotate_right(8 * (offset as u32 & 3)) }
    }

    /// Masks the next piece of the payload where it lies, and stands behind it.
    #[inline]
    pub fn apply(&mut self, piece: &mut [u8]) {
        let key = self.key;
        let double = u64::from(key) << 32 | u64::from(key);
        let (words, tail) = piece.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_le_bytes(*word) ^ double).to_le_bytes();
        }
        let bytes = double.to_le_bytes();
        for (byte, mask) in tail.iter_mut().zip(bytes) {
            *byte ^= mask;
        }
        // What was done in words leaves the key where it was.
        self.key = key.rotate_right(8 * (tail.len() as u32 & 3));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sentence of the RFC: byte i is masked with byte i modulo 4 of the key.
    fn by_the_byte(payload: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ key[(offset + i) % 4]).collect()
    }

    #[test]
    fn the_example_of_the_rfc_is_unmasked() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        Mask::new([0x37, 0xfa, 0x21, 0x3d]).apply(&mut payload);
        assert_eq!(&payload, b"Hello");
    }

    proptest! {
        #[test]
        fn a_payload_is_masked_byte_by_byte_from_any_offset(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            offset: usize,
        ) {
            let offset = offset % (1 << 40);
            let mut masked = payload.clone();
            Mask::at(key, offset).apply(&mut masked);
            prop_assert_eq!(masked, by_the_byte(&payload, key, offset));
        }

        #[test]
        fn how_a_payload_is_cut_makes_no_difference(
            payload in prop::collection::vec(any::<u8>(), 0..200),
            key: [u8; 4],
            pieces in prop::collection::vec(0_usize..40, 0..20),
        ) {
            let mut masked = payload.clone();
            let (mut mask, mut at) = (Mask::new(key), 0);
            for piece in pieces.into_iter().chain([usize::MAX]) {
                let end = at + piece.min(payload.len() - at);
                mask.apply(&mut masked[at..end]);
                at = end;
                prop_assert_eq!(mask, Mask::at(key, at));
            }
            prop_assert_eq!(masked, by_the_byte(&payload, key, 0));
        }
    }
}
