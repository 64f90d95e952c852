//! `frontend.rules`: what must match, and what is done then.

use mapsmith_core::config::rules::{
    self, Action, Condition, HeaderHow, How, MapKey, Matcher, Redirect, RedirectStatus,
};
use mapsmith_core::config::values::{
    ErrorStatus, FilePath, HeaderName, Method, Name, Network, Status, Text,
};
use serde::Deserialize;

use crate::settings::keys::section;

/// A value, or a list of which one must match.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Vec<T>", bound = "T: Deserialize<'de>")]
pub struct Values<T>(Vec<T>);

impl<T> TryFrom<Vec<T>> for Values<T> {
    type Error = &'static str;

    fn try_from(values: Vec<T>) -> Result<Self, Self::Error> {
        if values.is_empty() { Err("an empty list matches nothing") } else { Ok(Self(values)) }
    }
}

impl<T: Clone> Values<T> {
    fn list(&self) -> Vec<T> {
        self.0.clone()
    }
}

section! {
    /// A rule: conditions, all of which must match, and exactly one action. A condition takes one
    /// value or a list, of which one must match. Without conditions it is for every request. The
    /// first rule with `backend` that matches decides where a request goes.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Rule {
        /// The path is one of these.
        pub path: Option<Values<Text>>,
        /// It begins with one of these.
        pub path_beg: Option<Values<Text>>,
        /// It ends with one of these.
        pub path_end: Option<Values<Text>>,
        /// It matches one of these regular expressions.
        pub path_reg: Option<Values<Text>>,
        /// The path with its query is one of these.
        pub url: Option<Values<Text>>,
        /// It begins with one of these.
        pub url_beg: Option<Values<Text>>,
        /// It ends with one of these.
        pub url_end: Option<Values<Text>>,
        /// It matches one of these regular expressions.
        pub url_reg: Option<Values<Text>>,
        /// The header that `hdr`, `hdr_beg`, `hdr_dom` and `hdr_reg` compare. Upper and lower case
        /// are the same.
        pub header: Option<HeaderName>,
        /// The header is one of these.
        pub hdr: Option<Values<Text>>,
        /// It begins with one of these.
        pub hdr_beg: Option<Values<Text>>,
        /// It has one of these as whole labels of a domain name: `example.com` in
        /// `www.example.com`.
        pub hdr_dom: Option<Values<Text>>,
        /// It matches one of these regular expressions.
        pub hdr_reg: Option<Values<Text>>,
        /// The requested host, without its port, is one of these.
        pub host: Option<Values<Text>>,
        /// The method is one of these.
        pub method: Option<Values<Method>>,
        /// The client's address is one of these, or within one of these networks.
        pub src: Option<Values<Network>>,
        /// The host name in the TLS handshake is one of these.
        pub sni: Option<Values<Text>>,
        /// A map file has a key for the request: `{ file, by }`. `by` is `path` (a key that the path
        /// begins with), `host`, `src` or `{ header = "..." }`.
        pub map: Option<MapMatch>,
        /// None of this table's conditions matches.
        pub not: Option<Box<Rule>>,
        /// All conditions of one of these tables match.
        pub any: Vec<Rule>,
        /// Action: the request goes to this backend.
        pub backend: Option<Name>,
        /// Action: a redirect to `{ location = URL }`, to the requested path behind `{ prefix = URL
        /// }`, or to the same URL by HTTPS: `{ https = true }`, which leaves alone who comes by TLS.
        /// With `status` 301, 302 (the default), 303, 307 or 308.
        pub redirect: Option<Redirection>,
        /// Action: HAProxy's own answer of this status, like 403. In mode tcp the connection is
        /// closed.
        pub deny: Option<ErrorStatus>,
        /// Action: this answer, `{ status, content_type, body }`.
        #[serde(rename = "return")]
        pub answer: Option<Answer>,
        /// Action: sets a header of the request, `{ name, value }`.
        pub set_header: Option<HeaderValue>,
        /// Action: removes a header of the request.
        pub del_header: Option<HeaderName>,
        /// Action: sets the path.
        pub set_path: Option<Text>,
        /// Action: replaces what a regular expression matches in the path, `{ regex, with }`; `\1`
        /// in `with` is the first group.
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

impl Rule {
    /// As the core has it.
    ///
    /// # Errors
    /// What contradicts itself.
    pub fn model(&self) -> Result<rules::Rule, String> {
        let mut actions = self.actions()?;
        let action = match (actions.pop(), actions.pop()) {
            (Some(action), None) => action,
            (None, _) => {
                return Err("has no action: give one of backend, redirect, deny, return, \
                    set_header, del_header, set_path, replace_path"
                    .to_owned());
            }
            (Some(_), Some(_)) => {
                return Err("has several actions: make a rule of each".to_owned());
            }
        };
        let none = self.not.as_ref().map_or(Ok(Vec::new()), |not| not.only_matchers("not"))?;
        let any = self.any.iter().map(|group| group.only_matchers("any"));
        let any: Vec<_> = any.collect::<Result<_, _>>()?;
        if any.iter().any(Vec::is_empty) {
            return Err("any: a table without conditions would match every request".to_owned());
        }
        if self.not.is_some() && none.is_empty() {
            return Err("not: has no conditions".to_owned());
        }
        let condition = Condition { all: self.matchers()?, none, any };
        Ok(rules::Rule { condition, action })
    }

    /// The matchers of a table within `not` or `any`.
    fn only_matchers(&self, key: &str) -> Result<Vec<Matcher>, String> {
        if !self.actions()?.is_empty() || self.not.is_some() || !self.any.is_empty() {
            return Err(format!("{key}: takes conditions only"));
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
            (None, false) => Err("hdr: needs `header`, the header's name".to_owned()),
            (Some(_), true) => {
                Err("header: needs one of hdr, hdr_beg, hdr_dom, hdr_reg".to_owned())
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
            _ => {
                return Err(
                    "redirect: give exactly one of location, prefix, https = true".to_owned()
                );
            }
        };
        let status = match self.status {
            Some(301) => RedirectStatus::Moved,
            None | Some(302) => RedirectStatus::Found,
            Some(303) => RedirectStatus::SeeOther,
            Some(307) => RedirectStatus::Temporary,
            Some(308) => RedirectStatus::Permanent,
            Some(other) => {
                return Err(format!("redirect: status {other} is none of 301, 302, 303, 307, 308"));
            }
        };
        Ok(Action::Redirect { to, status })
    }
}
