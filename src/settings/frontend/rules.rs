//! `frontend.rules`: what must match, and what is done then.

use mapsmith_core::config::rules::{
    self, Action, Condition, HeaderHow, How, MapKey, Matcher, Redirect, RedirectStatus,
};
use mapsmith_core::config::values::{FilePath, HeaderName, Method, Name, Network, Status, Text};
use serde::Deserialize;

use crate::settings::keys::section;

/// A value, or several of which one is enough.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

section! {
    /// A rule: a table with what must match, all of it together, and one thing that is done then.
    /// Where several values are given for a key, one of them is enough.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Rule {
        /// The path is one of these.
        pub path: Option<OneOrMore<Text>>,
        /// It begins with one of these.
        pub path_beg: Option<OneOrMore<Text>>,
        /// It ends with one of these.
        pub path_end: Option<OneOrMore<Text>>,
        /// It matches one of these regular expressions.
        pub path_reg: Option<OneOrMore<Text>>,
        /// The path with its query is one of these.
        pub url: Option<OneOrMore<Text>>,
        /// It begins with one of these.
        pub url_beg: Option<OneOrMore<Text>>,
        /// It ends with one of these.
        pub url_end: Option<OneOrMore<Text>>,
        /// It matches one of these regular expressions.
        pub url_reg: Option<OneOrMore<Text>>,
        /// The header that `hdr`, `hdr_beg`, `hdr_dom` and `hdr_reg` look at, whatever the case.
        pub header: Option<HeaderName>,
        /// The header is one of these.
        pub hdr: Option<OneOrMore<Text>>,
        /// It begins with one of these.
        pub hdr_beg: Option<OneOrMore<Text>>,
        /// It has one of these as labels of a domain: `example.com` in `www.example.com`.
        pub hdr_dom: Option<OneOrMore<Text>>,
        /// It matches one of these regular expressions.
        pub hdr_reg: Option<OneOrMore<Text>>,
        /// The host that is asked for, without its port, is one of these.
        pub host: Option<OneOrMore<Text>>,
        /// The method is one of these.
        pub method: Option<OneOrMore<Method>>,
        /// The client's address is one of these, or in one of these networks.
        pub src: Option<OneOrMore<Network>>,
        /// The name that the client asks for by TLS is one of these.
        pub sni: Option<OneOrMore<Text>>,
        /// A map file has what is looked up as a key: `{ file, by }`, by `path`, `host`, `src` or
        /// `{ header = "..." }`.
        pub map: Option<MapMatch>,
        /// None of what is in this table matches.
        pub not: Option<Box<Rule>>,
        /// All of what is in one of these tables matches.
        pub any: Vec<Rule>,
        /// Then: this backend, unless a rule before named one.
        pub backend: Option<Name>,
        /// Then: another address, `{ location }`, `{ prefix }` or `{ https = true }`, with `status`
        /// 301, 302, 303, 307 or 308.
        pub redirect: Option<Redirection>,
        /// Then: no more than this status, as 403.
        pub deny: Option<Status>,
        /// Then: this answer, `{ status, content_type, body }`.
        #[serde(rename = "return")]
        pub answer: Option<Answer>,
        /// Then: a header of the request is set, `{ name, value }`.
        pub set_header: Option<HeaderValue>,
        /// Then: a header of the request is dropped.
        pub del_header: Option<HeaderName>,
        /// Then: another path.
        pub set_path: Option<Text>,
        /// Then: what this expression finds in the path is replaced, `{ regex, with }`.
        pub replace_path: Option<Rewrite>,
    }
}

/// A key that is looked up in a map file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapMatch {
    pub file: FilePath,
    pub by: MapBy,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapBy {
    Path,
    Host,
    Src,
    Header(HeaderName),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirection {
    pub location: Option<Text>,
    pub prefix: Option<Text>,
    #[serde(default)]
    pub https: bool,
    pub status: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub status: Status,
    pub content_type: Option<Text>,
    pub body: Option<Text>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderValue {
    pub name: HeaderName,
    pub value: Text,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    pub regex: Text,
    pub with: Text,
}

impl<T: Clone> OneOrMore<T> {
    fn list(&self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value.clone()],
            Self::More(values) => values.clone(),
        }
    }
}

impl Rule {
    /// As the pure core takes it.
    ///
    /// # Errors
    /// What contradicts itself, for a person.
    pub fn model(&self) -> Result<rules::Rule, String> {
        let mut actions = self.actions()?;
        let action = match (actions.pop(), actions.pop()) {
            (Some(action), None) => action,
            (None, _) => {
                return Err("it does nothing: give one of backend, redirect, deny, return, \
                    set_header, del_header, set_path, replace_path"
                    .to_owned());
            }
            (Some(_), Some(_)) => {
                return Err("it does several things: make a rule of each".to_owned());
            }
        };
        let none = self.not.as_ref().map_or(Ok(Vec::new()), |not| not.only_matchers("not"))?;
        let any = self.any.iter().map(|group| group.only_matchers("any"));
        let any: Vec<_> = any.collect::<Result<_, _>>()?;
        if any.iter().any(Vec::is_empty) {
            return Err("any: an empty table would match everything".to_owned());
        }
        let condition = Condition { all: self.matchers()?, none, any };
        Ok(rules::Rule { condition, action })
    }

    /// The matchers of a table within `not` or `any`.
    fn only_matchers(&self, key: &str) -> Result<Vec<Matcher>, String> {
        if !self.actions()?.is_empty() || self.not.is_some() || !self.any.is_empty() {
            return Err(format!("{key}: only what must match may stand here"));
        }
        self.matchers()
    }

    fn matchers(&self) -> Result<Vec<Matcher>, String> {
        let mut matchers = Vec::new();
        for (values, how) in [
            (&self.path, How::Exact),
            (&self.path_beg, How::Begins),
            (&self.path_end, How::Ends),
            (&self.path_reg, How::Regex),
        ] {
            matchers.extend(values.as_ref().map(|values| Matcher::Path(how, values.list())));
        }
        for (values, how) in [
            (&self.url, How::Exact),
            (&self.url_beg, How::Begins),
            (&self.url_end, How::Ends),
            (&self.url_reg, How::Regex),
        ] {
            matchers.extend(values.as_ref().map(|values| Matcher::Url(how, values.list())));
        }
        matchers.extend(self.header_matchers()?);
        matchers.extend(self.host.as_ref().map(|values| Matcher::Host(values.list())));
        matchers.extend(self.method.as_ref().map(|values| Matcher::Method(values.list())));
        matchers.extend(self.src.as_ref().map(|values| Matcher::Source(values.list())));
        matchers.extend(self.sni.as_ref().map(|values| Matcher::Sni(values.list())));
        matchers.extend(self.map.as_ref().map(|MapMatch { file, by }| {
            let key = match by {
                MapBy::Path => MapKey::Path,
                MapBy::Host => MapKey::Host,
                MapBy::Src => MapKey::Source,
                MapBy::Header(name) => MapKey::Header(name.clone()),
            };
            Matcher::Map(key, file.clone())
        }));
        Ok(matchers)
    }

    fn header_matchers(&self) -> Result<Vec<Matcher>, String> {
        let given = [
            (&self.hdr, HeaderHow::Exact),
            (&self.hdr_beg, HeaderHow::Begins),
            (&self.hdr_dom, HeaderHow::Domain),
            (&self.hdr_reg, HeaderHow::Regex),
        ];
        let given: Vec<_> =
            given.into_iter().filter_map(|(values, how)| Some((values.as_ref()?, how))).collect();
        match (&self.header, given.is_empty()) {
            (None, true) => Ok(Vec::new()),
            (None, false) => Err("hdr...: `header` names which one".to_owned()),
            (Some(_), true) => {
                Err("header: give one of hdr, hdr_beg, hdr_dom, hdr_reg with it".to_owned())
            }
            (Some(header), false) => Ok(given
                .into_iter()
                .map(|(values, how)| Matcher::Header(header.clone(), how, values.list()))
                .collect()),
        }
    }

    fn actions(&self) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        actions.extend(self.backend.clone().map(Action::Backend));
        if let Some(redirect) = &self.redirect {
            actions.push(redirect.action()?);
        }
        actions.extend(self.deny.map(Action::Deny));
        if let Some(Answer { status, content_type, body }) = &self.answer {
            let (content_type, body) = (content_type.clone(), body.clone());
            actions.push(Action::Return { status: *status, content_type, body });
        }
        let set = self.set_header.clone();
        actions.extend(set.map(|HeaderValue { name, value }| Action::SetHeader(name, value)));
        actions.extend(self.del_header.clone().map(Action::DelHeader));
        actions.extend(self.set_path.clone().map(Action::SetPath));
        let replace = self.replace_path.clone();
        actions.extend(replace.map(|Rewrite { regex, with }| Action::ReplacePath(regex, with)));
        Ok(actions)
    }
}

impl Redirection {
    fn action(&self) -> Result<Action, String> {
        let to = match (&self.location, &self.prefix, self.https) {
            (Some(location), None, false) => Redirect::Location(location.clone()),
            (None, Some(prefix), false) => Redirect::Prefix(prefix.clone()),
            (None, None, true) => Redirect::Https,
            _ => return Err("redirect: give one of location, prefix, https = true".to_owned()),
        };
        let status = match self.status {
            Some(301) => RedirectStatus::Moved,
            None | Some(302) => RedirectStatus::Found,
            Some(303) => RedirectStatus::SeeOther,
            Some(307) => RedirectStatus::Temporary,
            Some(308) => RedirectStatus::Permanent,
            Some(other) => {
                return Err(format!("redirect.status: {other} is none of 301, 302, 303, 307, 308"));
            }
        };
        Ok(Action::Redirect { to, status })
    }
}
