//! Of many things that are news at one time a log names a few, and counts the rest.

/// How many are named.
const NAMED: usize = 5;

/// The first few, and how many more there are.
pub fn few<T>(all: impl IntoIterator<Item = T>) -> (Vec<T>, usize) {
    let mut all = all.into_iter();
    let named = all.by_ref().take(NAMED).collect();
    (named, all.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_named_and_the_rest_is_counted() {
        assert_eq!(few(0..300), (vec![0, 1, 2, 3, 4], 295));
        assert_eq!(few(0..5), (vec![0, 1, 2, 3, 4], 0));
        assert_eq!(few([0; 0]), (vec![], 0));
    }
}
