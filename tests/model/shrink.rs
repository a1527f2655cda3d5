//! The smallest part of a sequence that still fails.

/// Leaves out as much as it can (half, a quarter, .. one by one) while `fails` still says why; returns what is left and
/// the last reason.
pub fn smallest<T: Clone>(
    sequence: &[T],
    reason: String,
    mut fails: impl FnMut(&[T]) -> Option<String>,
) -> (Vec<T>, String) {
    let (mut smallest, mut reason) = (sequence.to_vec(), reason);
    let mut part = smallest.len().div_ceil(2);
    while part > 0 {
        let mut begin = 0;
        while begin < smallest.len() {
            let end = (begin + part).min(smallest.len());
            let candidate = [&smallest[..begin], &smallest[end..]].concat();
            match fails(&candidate) {
                Some(why) => (smallest, reason) = (candidate, why),
                None => begin = end,
            }
        }
        part /= 2;
    }
    (smallest, reason)
}

#[test]
fn leaves_only_what_matters() {
    let both = |part: &[u32]| (part.contains(&17) && part.contains(&40)).then(|| format!("{} left", part.len()));
    let (left, reason) = smallest(&(0..60).collect::<Vec<u32>>(), String::new(), both);
    assert_eq!((left, reason), (vec![17, 40], "2 left".to_owned()));
}
