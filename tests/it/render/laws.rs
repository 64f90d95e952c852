//! What holds of every rendered text, without a HAProxy: any text stays in its field, and nothing
//! else of the configuration depends on it.

use mapsmith_core::config::rules::{Action, Condition, Matcher, Redirect, Rule};
use mapsmith_core::config::values::Text;
use mapsmith_core::config::{Config, Expect};
use mapsmith_core::render::render;
use mapsmith_core::render::words::{MAX_WORDS, words};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use super::files::Files;
use super::models::{self, value};

/// How HAProxy reads what stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// As it stands.
    Word,
    /// As a log format, where `%%` is a percent sign.
    LogFormat,
}

type Visit<'a> = dyn FnMut(Reading, &mut Text) + 'a;

/// Shows every text of a configuration that anything may stand in.
fn texts(config: &mut Config, visit: &mut Visit<'_>) {
    let process = &mut config.process;
    let users = process.user.iter_mut().chain(&mut process.group);
    let uri = process.stats.iter_mut().flat_map(|stats| &mut stats.uri);
    users.chain(uri).for_each(|text| visit(Reading::Word, text));
    for frontend in &mut config.frontends {
        let shared = frontend.route.iter_mut().flat_map(|route| &mut route.shared);
        shared.for_each(|path| visit(Reading::Word, path));
        for Rule { condition, action } in &mut frontend.rules {
            let Condition { all, none, any } = condition;
            let matchers = all.iter_mut().chain(none).chain(any.iter_mut().flatten());
            matchers.for_each(|matcher| matched(matcher, visit));
            acted(action, visit);
        }
    }
    for backend in &mut config.backends {
        if let Some(check) = &mut backend.check {
            visit(Reading::Word, &mut check.uri);
            check.host.iter_mut().for_each(|host| visit(Reading::LogFormat, host));
            if let Some(Expect::Body(text) | Expect::BodyRegex(text)) = &mut check.expect {
                visit(Reading::Word, text);
            }
        }
        backend.host.iter_mut().for_each(|host| visit(Reading::LogFormat, host));
        for error in &mut backend.errors {
            error.content_type.iter_mut().for_each(|text| visit(Reading::Word, text));
            visit(Reading::Word, &mut error.body);
        }
    }
}

fn matched(matcher: &mut Matcher, visit: &mut Visit<'_>) {
    let values = match matcher {
        Matcher::Path(_, values)
        | Matcher::Url(_, values)
        | Matcher::Header(_, _, values)
        | Matcher::Host(values)
        | Matcher::Sni(values) => values,
        Matcher::Method(_) | Matcher::Source(_) | Matcher::Map(..) => return,
    };
    values.iter_mut().for_each(|text| visit(Reading::Word, text));
}

fn acted(action: &mut Action, visit: &mut Visit<'_>) {
    match action {
        Action::Redirect { to: Redirect::Location(to) | Redirect::Prefix(to), .. } => {
            visit(Reading::LogFormat, to);
        }
        Action::Return { content_type: Some(content_type), body: Some(body), .. } => {
            visit(Reading::Word, content_type);
            visit(Reading::Word, body);
        }
        Action::Return { body: Some(body), .. } => visit(Reading::Word, body),
        Action::SetHeader(_, text) | Action::SetPath(text) => visit(Reading::LogFormat, text),
        Action::ReplacePath(expression, path) => {
            visit(Reading::Word, expression);
            visit(Reading::LogFormat, path);
        }
        Action::Redirect { .. }
        | Action::Return { .. }
        | Action::Backend(_)
        | Action::Deny(_)
        | Action::DelHeader(_) => {}
    }
}

/// A word that nothing else of a configuration can be.
fn mark(number: usize) -> String {
    format!("~{number}~")
}

#[test]
fn any_text_stays_in_its_field_and_nothing_else_depends_on_it() {
    let files = Files::create();
    let drawn = (models::config(&files), vec(models::text(), 1..40));
    let property = |(mut config, nasty): (Config, Vec<Text>)| {
        // What each mark stands for, as HAProxy's tokenizer is to read it.
        let mut intended: Vec<String> = Vec::new();
        texts(&mut config, &mut |reading, text| {
            let nasty = nasty[intended.len() % nasty.len()].clone();
            intended.push(match reading {
                Reading::Word => nasty.to_string(),
                Reading::LogFormat => nasty.to_string().replace('%', "%%"),
            });
            *text = nasty;
        });
        let rendered = render(&config);
        prop_assert_eq!(&render(&config.clone()), &rendered);
        let mut number = 0..;
        texts(&mut config, &mut |_, text| *text = value(&mark(number.next().unwrap_or(0))));
        let marked = render(&config);
        let lines = || rendered.text().lines().zip(marked.text().lines());
        prop_assert_eq!(rendered.text().lines().count(), marked.text().lines().count());
        let mut seen = 0;
        for (at, (line, marked_line)) in lines().enumerate() {
            prop_assert_eq!(rendered.origin(at + 1), marked.origin(at + 1));
            let read =
                words(line).map_err(|error| TestCaseError::fail(format!("{line}: {error}")))?;
            prop_assert!(read.len() <= MAX_WORDS);
            let of_marks = words(marked_line).expect("a line without anything nasty");
            let expected: Vec<_> = of_marks
                .into_iter()
                .map(|word| match word.strip_prefix('~').and_then(|word| word.strip_suffix('~')) {
                    Some(number) => {
                        seen += 1;
                        intended[number.parse::<usize>().expect("the number of a mark")].clone()
                    }
                    None => word,
                })
                .collect();
            prop_assert_eq!(read, expected, "{}", line);
        }
        prop_assert_eq!(seen, intended.len(), "texts that are in the configuration");
        Ok(())
    };
    let cases = Cases { cases: 500, ..Cases::default() };
    TestRunner::new(cases).run(&drawn, property).unwrap_or_else(|failure| panic!("{failure}"));
}
