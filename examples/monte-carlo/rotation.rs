//! Images that are turned about their centre.

use crate::data::PIXELS;

/// Rows and columns of an image.
const SIDE: usize = 8;
const _: () = assert!(SIDE * SIDE == PIXELS, "images are square");

/// The image, turned to the left by some degrees; what comes in from outside is paper. Between pixels it is bilinear.
///
/// `sin` and `cos` come from `libm`, because those of the standard library differ between platforms.
pub(crate) fn rotated(pixels: &[f32], degrees: f32) -> Vec<f32> {
    let radians = degrees.to_radians();
    let (sin, cos) = (libm::sinf(radians), libm::cosf(radians));
    let centre = (SIDE - 1) as f32 / 2.0;
    let at = |row: f32, column: f32| {
        let inside = 0.0..SIDE as f32;
        if !(inside.contains(&row) && inside.contains(&column)) {
            return 0.0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers inside the image")]
        let index = row as usize * SIDE + column as usize;
        pixels[index]
    };
    let turned = |index: usize| {
        let (y, x) = ((index / SIDE) as f32 - centre, (index % SIDE) as f32 - centre);
        let (row, column) = (centre + cos * y + sin * x, centre - sin * y + cos * x);
        let (top, left) = (row.floor(), column.floor());
        let (down, right) = (row - top, column - left);
        let above = (1.0 - right) * at(top, left) + right * at(top, left + 1.0);
        let below = (1.0 - right) * at(top + 1.0, left) + right * at(top + 1.0, left + 1.0);
        (1.0 - down) * above + down * below
    };
    (0..PIXELS).map(turned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: &[f32], expected: &[f32]) {
        for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert!((actual - expected).abs() < 1e-4, "{actual} instead of {expected} at {index}");
        }
    }

    #[test]
    fn no_turn_changes_nothing_and_a_quarter_moves_rows_to_columns() {
        let pixels: Vec<f32> = (0..PIXELS).map(|index| index as f32 / 64.0).collect();
        assert_eq!(rotated(&pixels, 0.0), pixels);
        let quarter = |index: usize| pixels[index % SIDE * SIDE + SIDE - 1 - index / SIDE];
        assert_close(&rotated(&pixels, 90.0), &(0..PIXELS).map(quarter).collect::<Vec<f32>>());
        let half: Vec<f32> = pixels.iter().rev().copied().collect();
        assert_close(&rotated(&rotated(&pixels, 90.0), 90.0), &half);
    }
}
