//! Randomness.

/// Returns random bytes from the operating system.
///
/// # Panics
///
/// If the operating system has none.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the operating system has no randomness: {error}"),
        }
    }
    bytes
}
