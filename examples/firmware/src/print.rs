//! Text without the formatting of core, which would be most of the code in flash.

/// Something that takes text.
pub trait Print {
    /// Prints text.
    fn print(&mut self, text: &str);

    /// Prints a number.
    fn number(&mut self, number: u32) {
        let digits = decimal_digits::<10>(number);
        let zeros = digits.iter().take(9).take_while(|&&digit| digit == 0).count();
        digits.iter().skip(zeros).for_each(|&digit| self.digit(digit));
    }

    /// Prints one digit.
    fn digit(&mut self, digit: u8) {
        self.ascii(b'0' + digit);
    }

    /// Prints sixteen hexadecimal digits.
    fn hex(&mut self, number: u64) {
        for shift in (0..16).rev() {
            match (number >> (4 * shift)) as u8 & 15 {
                digit @ 0..10 => self.digit(digit),
                letter => self.ascii(b'a' - 10 + letter),
            }
        }
    }

    /// Prints a number below 400,000 with four decimals, rounded down.
    fn decimal(&mut self, number: f32) {
        // What does not fit is printed as the largest number that does.
        let ten_thousandths = (number * 1e4) as u32;
        self.number(ten_thousandths / 10_000);
        self.print(".");
        decimal_digits::<4>(ten_thousandths).iter().for_each(|&digit| self.digit(digit));
    }

    /// Prints a character.
    fn ascii(&mut self, character: u8) {
        if let Ok(text) = core::str::from_utf8(&[character]) {
            self.print(text);
        }
    }
}

/// The last digits of a number.
fn decimal_digits<const N: usize>(mut number: u32) -> [u8; N] {
    let mut digits = [0; N];
    for digit in digits.iter_mut().rev() {
        *digit = (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// FNV-1a (Fowler, Noll and Vo) of the little-endian bytes of numbers.
#[derive(Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Digest {
    /// Adds numbers.
    pub fn add<'a>(&mut self, numbers: impl IntoIterator<Item = &'a f32>) {
        for number in numbers {
            for byte in number.to_le_bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
    }

    /// The digest of what was added.
    pub fn value(&self) -> u64 {
        self.0
    }
}
