//! Names that are near a wrong one.

/// The most names that a wrong one is answered with.
const SIMILAR: usize = 5;

/// `; did you mean a, b?`, or what there is.
pub(super) fn similar<'a>(asked: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let lower = asked.to_lowercase();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        match name.contains(&lower) || lower.contains(&name) {
            true => 0,
            false => strsim::damerau_levenshtein(&lower, &name),
        }
    };
    let mut near: Vec<_> = known
        .clone()
        .filter(|name| name.len().abs_diff(asked.len()) <= 3 || name.contains(asked))
        .map(|name| (distance(name), name))
        .filter(|(distance, _)| *distance <= 2)
        .collect();
    near.sort_unstable();
    let near: Vec<_> = near.into_iter().take(SIMILAR).map(|(_, name)| name).collect();
    if !near.is_empty() {
        return format!("; did you mean {}?", near.join(", "));
    }
    let first: Vec<_> = known.clone().take(SIMILAR).collect();
    match known.count().saturating_sub(first.len()) {
        _ if first.is_empty() => String::new(),
        0 => format!("; there is {}", first.join(", ")),
        more => format!("; there is {} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::similar;

    #[test]
    fn a_wrong_name_is_answered_with_those_that_are_near() {
        let known = ["web1", "web2", "app", "mail", "cache", "static"];
        let said = |asked: &str| similar(asked, known.into_iter());
        assert_eq!(said("wbe1"), "; did you mean web1, web2?");
        assert_eq!(said("APP"), "; did you mean app?");
        assert_eq!(said("nowhere"), "; there is web1, web2, app, mail, cache and 1 more");
        assert_eq!(similar("x", std::iter::empty()), "");
    }
}
