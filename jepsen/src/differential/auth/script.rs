//! Draws who does what while authentication comes and goes.
//!
//! The script is written without knowing what is refused: it believes that every change went through, so its passwords
//! are right often, not always. [`Writer::repair`] brings root back whatever has happened.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rand::Rng;

use super::call::{AuthCall, Who};
use super::ranges::{holds_nothing, is_nothing};
use crate::differential::call::{Call, Follow, OWN_MEMBER};
use crate::differential::generate::{Dialect, Draw};
use crate::differential::members::{MemberCall, OWN_URL, nth_member};
use crate::differential::upkeep::UpkeepCall;
use crate::pb::authpb::{Permission, UserAddOptions};
use crate::pb::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest, AuthenticateRequest, MemberAddRequest,
    MemberUpdateRequest, PutRequest, RangeRequest, WatchCreateRequest,
};

/// One call by somebody.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) who: Who,
    pub(super) call: Call,
}

const ROOT: &str = "root";
const USERS: [&str; 3] = ["alice", "bob", "carol"];
const ROLES: [&str; 4] = ["reader", "writer", "owner", ROOT];
/// Users and roles that there may be or not.
const ODD_NAMES: [&str; 6] = ["", "nobody", "Alice", "a b", "\u{e4}\u{1f600}", "x"];
const PASSWORDS: [&str; 2] = ["one", "two"];
/// bcrypt's of "one", of the lowest cost, as base64: what a client may send as `hashedPassword`.
const HASHED_ONE: &str =
    "JDJhJDA0JGFiY2RlZmdoaWprbG1ub3BxcnN0dXV1aU1kMVhrUDNNWWtlaHp4cFBIQjZtNVRyMEZaU1lH";
const HASHED: [&str; 5] = [HASHED_ONE, "", "bm8gaGFzaA==", "no base64!", "JDJhJDA0"];
/// Of a range that is none of those a role has.
const DRAWS_MAX: usize = 20;
const STRANGERS: [&str; 10] = [
    "x",
    "a.b",
    "a.1.2",
    ".1",
    "AAAAAAAAAAAAAAAA.1",
    "Bearer AAAAAAAAAAAAAAAA.1",
    "Bearer ",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.AAAA",
    // Signed by nobody, for root.
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6MX0.",
    "..",
];

/// The calls of one seed. Tokens grow `old` with every change if they carry the revision they were given at.
pub(super) fn script(seed: u64, calls: usize, dialect: Dialect, old: bool) -> Vec<Step> {
    let draw = Draw::new(seed ^ 0x6175_7468, dialect);
    let mut writer = Writer {
        draw,
        passwords: BTreeMap::new(),
        old,
        granted: BTreeMap::new(),
        named: 0,
        ahead: VecDeque::new(),
    };
    writer.begin();
    let mut steps = Vec::with_capacity(calls);
    while steps.len() < calls {
        if writer.ahead.is_empty() {
            writer.next();
        }
        steps.extend(writer.ahead.pop_front());
    }
    writer.ahead.clear();
    writer.inventory();
    steps.extend(writer.ahead);
    steps
}

struct Writer {
    draw: Draw,
    /// What the script believes.
    passwords: BTreeMap<&'static str, &'static str>,
    old: bool,
    /// Every range that was ever granted to a role, by its key.
    granted: BTreeMap<(&'static str, Bytes), BTreeSet<Bytes>>,
    /// Members that were asked for.
    named: usize,
    ahead: VecDeque<Step>,
}

fn user_add(name: &str, password: &str) -> AuthCall {
    AuthCall::UserAdd(AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..AuthUserAddRequest::default()
    })
}

fn role_add(name: &str) -> AuthCall {
    AuthCall::RoleAdd(AuthRoleAddRequest { name: name.to_owned() })
}

fn grant(user: &str, role: &str) -> AuthCall {
    AuthCall::UserGrantRole(AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    })
}

impl Writer {
    fn push(&mut self, who: Who, call: Call) {
        self.ahead.push_back(Step { who, call });
    }

    fn as_root(&mut self, call: AuthCall) {
        self.push(Who::User(ROOT, 0), Call::Auth(call));
    }

    fn login(&mut self, name: &'static str, password: &str) {
        let (name, password) = (name.to_owned(), password.to_owned());
        let call = AuthCall::Authenticate(AuthenticateRequest { name, password });
        self.push(Who::Nobody, Call::Auth(call));
    }

    /// Logs root in, whichever of its passwords holds.
    fn login_root(&mut self) {
        let believed = self.passwords.get(ROOT).copied().unwrap_or(PASSWORDS[0]);
        self.login(ROOT, believed);
        if self.draw.chance(200) {
            let other = self.draw.pick(&PASSWORDS);
            self.login(ROOT, other);
        }
    }

    /// Users, roles and rights to begin with.
    fn begin(&mut self) {
        self.login(ROOT, PASSWORDS[0]);
        self.as_root(AuthCall::Enable);
        self.as_root(AuthCall::Disable);
        self.as_root(user_add(ROOT, PASSWORDS[0]));
        self.as_root(AuthCall::Enable);
        self.as_root(grant(ROOT, ROOT));
        for name in USERS {
            self.as_root(user_add(name, PASSWORDS[0]));
            self.passwords.insert(name, PASSWORDS[0]);
        }
        self.passwords.insert(ROOT, PASSWORDS[0]);
        for (role, kind) in [("reader", 0), ("writer", 1), ("owner", 2)] {
            self.as_root(role_add(role));
            let grant = self.permission(role, kind);
            self.as_root(grant);
        }
        for (user, role) in [("alice", "reader"), ("bob", "writer"), ("carol", "owner")] {
            self.as_root(grant(user, role));
        }
        self.as_root(AuthCall::Status);
        self.as_root(AuthCall::Enable);
        self.as_root(AuthCall::Status);
        self.login_root();
        for name in USERS {
            self.login(name, PASSWORDS[0]);
        }
    }

    /// Whatever has happened to root, it can enable authentication again.
    fn repair(&mut self) {
        for password in PASSWORDS {
            self.login(ROOT, password);
        }
        self.as_root(user_add(ROOT, PASSWORDS[0]));
        self.relogin(ROOT);
        self.as_root(grant(ROOT, ROOT));
        self.relogin(ROOT);
        let change = AuthCall::UserChangePassword(AuthUserChangePasswordRequest {
            name: ROOT.to_owned(),
            password: PASSWORDS[0].to_owned(),
            ..AuthUserChangePasswordRequest::default()
        });
        self.as_root(change);
        self.passwords.insert(ROOT, PASSWORDS[0]);
        self.relogin(ROOT);
        self.as_root(AuthCall::Enable);
        self.login_root();
    }

    fn relogin(&mut self, name: &'static str) {
        for password in PASSWORDS {
            self.login(name, password);
        }
    }

    fn next(&mut self) {
        match self.draw.rng.random_range(0..1000) {
            0..110 => self.any_login(),
            110..320 => self.manage(),
            320..345 => {
                let who = self.who();
                self.push(who, Call::Auth(AuthCall::Status));
            }
            345..375 => self.look(),
            375..392 => self.follow(),
            392..402 => self.switch(),
            402..430 => self.member_call(),
            430..465 => self.upkeep(),
            465..485 => self.alarm(),
            485..493 => self.repair(),
            493..495 => {
                let who = self.who();
                self.push(who, Call::Restart);
                self.login_root();
            }
            495..510 => {
                let who = self.who();
                let list = Call::MemberList(self.draw.chance(500));
                self.push(who, list);
            }
            510..525 => {
                let who = self.who();
                self.push(who, Call::Status);
            }
            _ => self.data_call(),
        }
    }

    fn any_user(&mut self) -> &'static str {
        match self.draw.rng.random_range(0..100) {
            0..22 => ROOT,
            22..94 => self.draw.pick(&USERS),
            _ => self.draw.pick(&ODD_NAMES),
        }
    }

    fn any_role(&mut self) -> &'static str {
        if self.draw.chance(930) { self.draw.pick(&ROLES) } else { self.draw.pick(&ODD_NAMES) }
    }

    fn who(&mut self) -> Who {
        match self.draw.rng.random_range(0..100) {
            0..58 => Who::User(self.draw.pick(&USERS), 0),
            58..76 => Who::User(ROOT, 0),
            76..86 => Who::Nobody,
            86..94 => Who::User(self.any_user(), self.draw.rng.random_range(1..4)),
            _ => Who::Stranger(self.draw.pick(&STRANGERS)),
        }
    }

    /// Whoever manages users and roles: mostly root.
    fn manager(&mut self) -> Who {
        if self.draw.chance(780) { Who::User(ROOT, 0) } else { self.who() }
    }

    fn any_login(&mut self) {
        let name = self.any_user();
        let believed = self.passwords.get(name).copied();
        let password = match self.draw.rng.random_range(0..100) {
            0..78 => believed.unwrap_or(PASSWORDS[0]),
            78..96 => self.draw.pick(&PASSWORDS),
            _ => self.draw.pick(&["", "wrong", "ONE"]),
        };
        self.login(name, password);
    }

    /// A change of users or roles, or a look at them; who was logged in may have to log in again.
    fn manage(&mut self) {
        let manager = self.manager();
        let call = self.change();
        let reads = matches!(
            call,
            AuthCall::UserGet(_) | AuthCall::UserList | AuthCall::RoleGet(_) | AuthCall::RoleList
        );
        self.push(manager, Call::Auth(call));
        if !reads && self.old {
            self.login_root();
            for name in USERS {
                if self.draw.chance(500) {
                    let password = self.passwords.get(name).copied().unwrap_or(PASSWORDS[0]);
                    self.login(name, password);
                }
            }
        } else if !reads && self.draw.chance(300) {
            self.login_root();
        }
    }

    fn change(&mut self) -> AuthCall {
        match self.draw.rng.random_range(0..100) {
            0..10 => self.user_add(),
            10..18 => self.change_password(),
            18..24 => self.user_delete(),
            24..34 => {
                let (user, role) = (self.any_user(), self.any_role());
                grant(user, role)
            }
            34..41 => AuthCall::UserRevokeRole(AuthUserRevokeRoleRequest {
                name: self.any_user().to_owned(),
                role: self.any_role().to_owned(),
            }),
            41..47 => role_add(self.any_role()),
            47..51 => {
                AuthCall::RoleDelete(AuthRoleDeleteRequest { role: self.any_role().to_owned() })
            }
            51..70 => {
                let (role, kind) = (self.any_role(), self.draw.rng.random_range(0..3));
                self.permission(role, kind)
            }
            70..80 => self.revoke_permission(),
            80..88 => AuthCall::UserGet(AuthUserGetRequest { name: self.any_user().to_owned() }),
            88..95 => AuthCall::RoleGet(AuthRoleGetRequest { role: self.any_role().to_owned() }),
            95..98 => AuthCall::UserList,
            _ => AuthCall::RoleList,
        }
    }

    fn user_add(&mut self) -> AuthCall {
        let name = self.any_user();
        let password = self.draw.pick(&PASSWORDS);
        if name == ROOT || self.draw.chance(600) {
            self.passwords.entry(name).or_insert(password);
            return user_add(name, password);
        }
        let long = "x".repeat(self.draw.pick(&[72, 73]));
        let password = if self.draw.chance(300) { long } else { String::new() };
        AuthCall::UserAdd(AuthUserAddRequest {
            name: name.to_owned(),
            password,
            options: self.draw.chance(600).then_some(UserAddOptions { no_password: true }),
            hashed_password: self.draw.pick(&HASHED).to_owned(),
        })
    }

    /// Root keeps a password that the script knows.
    fn change_password(&mut self) -> AuthCall {
        let name = self.any_user();
        let password = self.draw.pick(&PASSWORDS);
        if name == ROOT || self.draw.chance(700) {
            self.passwords.insert(name, password);
            return AuthCall::UserChangePassword(AuthUserChangePasswordRequest {
                name: name.to_owned(),
                password: password.to_owned(),
                hashed_password: self.draw.pick(&HASHED).to_owned(),
            });
        }
        let long = "x".repeat(self.draw.pick(&[72, 73]));
        let hashed = self.draw.pick(&HASHED);
        if hashed == HASHED_ONE {
            self.passwords.insert(name, PASSWORDS[0]);
        }
        AuthCall::UserChangePassword(AuthUserChangePasswordRequest {
            name: name.to_owned(),
            password: if self.draw.chance(250) { long } else { String::new() },
            hashed_password: hashed.to_owned(),
        })
    }

    fn user_delete(&mut self) -> AuthCall {
        AuthCall::UserDelete(AuthUserDeleteRequest { name: self.any_user().to_owned() })
    }

    /// Never a range again that the role may have beside another from the same key: see [`super::super::allowed`].
    fn permission(&mut self, role: &'static str, kind: i32) -> AuthCall {
        let drawn = (0..DRAWS_MAX).map(|_| self.draw.key_and_end());
        let drawn: Vec<_> = drawn.collect();
        let fresh = drawn.into_iter().find(|(key, range_end)| {
            let beside = self.granted.entry((role, key.clone())).or_default();
            beside.iter().eq([range_end]) || beside.insert(range_end.clone())
        });
        let Some((key, range_end)) = fresh else { return AuthCall::RoleList };
        let kind = if self.draw.chance(20) { self.draw.pick(&[3, -1]) } else { kind };
        let perm = Permission { perm_type: kind, key, range_end };
        AuthCall::RoleGrantPermission(AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: self.draw.chance(970).then_some(perm),
        })
    }

    fn revoke_permission(&mut self) -> AuthCall {
        let (key, range_end) = self.draw.key_and_end();
        let role = self.any_role().to_owned();
        AuthCall::RoleRevokePermission(AuthRoleRevokePermissionRequest { role, key, range_end })
    }

    fn data_call(&mut self) {
        let who = self.who();
        let mut call = self.draw.quiet_call();
        while holds_nothing(&call) {
            call = self.draw.quiet_call();
        }
        if let Call::RangeStream(request) = &mut call {
            request.sort_target = 0;
        }
        self.push(who, call);
    }

    fn look(&mut self) {
        let who = self.who();
        let mut watch = self.draw.watch_create();
        while is_nothing(&watch.key, &watch.range_end) {
            watch = self.draw.watch_create();
        }
        // What a watcher with a past hears first is a matter of time.
        let watch = WatchCreateRequest { start_revision: 0, progress_notify: false, ..watch };
        self.push(who, Call::Look(watch));
    }

    fn follow(&mut self) {
        let who = self.who();
        let key = self.draw.key();
        let key = if key.is_empty() { Bytes::from_static(b"a") } else { key };
        let watch = WatchCreateRequest { key: key.clone(), prev_kv: true, ..Default::default() };
        let meanwhile = match self.draw.rng.random_range(0..4) {
            0 => self.user_delete(),
            1 => self.revoke_permission(),
            2 => self.change_password(),
            _ => AuthCall::Status,
        };
        let value = Bytes::from_static(b"followed");
        let put = PutRequest { key, value, ..PutRequest::default() };
        self.push(who, Call::Follow(Box::new(Follow { watch, meanwhile, put })));
        self.login_root();
    }

    /// Off, a few calls, and on again.
    fn switch(&mut self) {
        let manager = self.manager();
        self.push(manager, Call::Auth(AuthCall::Disable));
        self.as_root(AuthCall::Status);
        for _ in 0..self.draw.rng.random_range(0..10) {
            match self.draw.rng.random_range(0..3) {
                0 => self.manage(),
                1 => self.any_login(),
                _ => self.data_call(),
            }
        }
        let manager = self.manager();
        self.push(manager, Call::Auth(AuthCall::Enable));
        self.login_root();
        self.as_root(AuthCall::Status);
        for name in USERS {
            let password = self.passwords.get(name).copied().unwrap_or(PASSWORDS[0]);
            self.login(name, password);
        }
    }

    /// What is refused to root too, or changes nothing about who votes.
    fn member_call(&mut self) {
        let who = self.who();
        // An id is made of URLs and the second: none are given twice.
        self.named += 1;
        let peer_ur_ls = match self.draw.rng.random_range(0..6) {
            0 => vec![],
            1 => vec![OWN_URL.to_owned()],
            2 => vec!["foo".to_owned()],
            _ => vec![format!("http://127.0.0.1:{}", self.named)],
        };
        let id = self.draw.pick(&[nth_member(2), nth_member(3), 7, OWN_MEMBER]);
        let call = match self.draw.rng.random_range(0..10) {
            0..4 => MemberCall::Add(MemberAddRequest { peer_ur_ls, is_learner: true }),
            4..7 => MemberCall::Remove(id),
            7..9 => MemberCall::Promote(id),
            _ => MemberCall::Update(MemberUpdateRequest { id: 7, peer_ur_ls }),
        };
        self.push(who, Call::Member(call));
    }

    fn upkeep(&mut self) {
        let who = self.who();
        let version = self.draw.pick(&["3.7", "3.5.0", "4.0", "x", ""]);
        let call = match self.draw.rng.random_range(0..6) {
            0 => UpkeepCall::Defragment,
            1 => UpkeepCall::Hash,
            2 => UpkeepCall::Snapshot,
            3 => UpkeepCall::MoveLeader(self.draw.pick(&[7, OWN_MEMBER, nth_member(2)])),
            _ => UpkeepCall::Downgrade(self.draw.rng.random_range(0..3), version),
        };
        self.push(who, Call::Upkeep(call));
    }

    /// Looks; sometimes an alarm that stands for a few calls.
    fn alarm(&mut self) {
        let who = self.who();
        if self.draw.chance(650) {
            let look = self.draw.alarm_look();
            return self.push(who, Call::Alarm(look));
        }
        let raise = AlarmRequest {
            action: 1,
            alarm: self.draw.pick(&[1, 2, 5]),
            member_id: self.draw.pick(&[OWN_MEMBER, 0, 7, 1 << 63]),
        };
        self.push(who, Call::Alarm(raise));
        for _ in 0..self.draw.rng.random_range(0..6) {
            self.data_call();
        }
        self.login_root();
        let clear = AlarmRequest { action: 2, ..raise };
        self.push(Who::User(ROOT, 0), Call::Alarm(clear));
    }

    /// Everything there is, as root.
    fn inventory(&mut self) {
        self.repair();
        for call in [AuthCall::Status, AuthCall::UserList, AuthCall::RoleList] {
            self.as_root(call);
        }
        for name in USERS.into_iter().chain([ROOT]).chain(ODD_NAMES) {
            self.as_root(AuthCall::UserGet(AuthUserGetRequest { name: name.to_owned() }));
        }
        for role in ROLES.into_iter().chain(ODD_NAMES) {
            self.as_root(AuthCall::RoleGet(AuthRoleGetRequest { role: role.to_owned() }));
        }
        let all = Bytes::from_static(b"\0");
        let all = RangeRequest { key: all.clone(), range_end: all, ..RangeRequest::default() };
        let root = || Who::User(ROOT, 0);
        for call in [Call::Range(all), Call::HashKv(0), Call::Leases, Call::Status] {
            self.push(root(), call);
        }
        self.push(root(), Call::Alarm(AlarmRequest::default()));
        self.push(root(), Call::MemberList(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::generate::tests::ALL;

    #[test]
    fn the_same_seed_draws_the_same_script_and_every_method() {
        let steps = script(7, 3000, ALL, false);
        assert_eq!(steps, script(7, 3000, ALL, false));
        let text = format!("{steps:?}");
        for call in [
            "Enable",
            "Disable",
            "Status",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ] {
            assert!(text.contains(&format!("Auth({call}")), "{call}");
        }
    }

    #[test]
    fn root_keeps_a_password_that_the_script_knows() {
        for step in script(3, 5000, ALL, true) {
            let known = match &step.call {
                Call::Auth(AuthCall::UserAdd(r)) if r.name == ROOT => Some(&r.password),
                Call::Auth(AuthCall::UserChangePassword(r)) if r.name == ROOT => Some(&r.password),
                _ => None,
            };
            assert!(known.is_none_or(|word| PASSWORDS.contains(&word.as_str())), "{step:?}");
        }
    }
}
