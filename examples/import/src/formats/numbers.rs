//! Numbers of f32 in little endian, as most formats store them.

use crate::model::Fault;

/// The numbers of some bytes. Bytes behind the last whole number are left out.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// The numbers of a file without names, one layer after another.
pub(super) struct Numbers<'a>(pub(super) &'a [u8]);

impl Numbers<'_> {
    /// The next `count` numbers.
    pub(super) fn take(&mut self, count: usize) -> Result<Vec<f32>, Fault> {
        let len = count.checked_mul(4).filter(|&len| len <= self.0.len());
        let len = len.ok_or_else(|| format!("{count} numbers are due, and {} bytes are left", self.0.len()))?;
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(floats(taken))
    }
}

/// The product of dimensions, of which a file may have any.
pub(super) fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, &dim| product.saturating_mul(dim))
}
