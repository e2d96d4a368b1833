use super::*;

fn flags() -> FlagSet {
    let spec = |name, kind, default| FlagSpec { name, kind, default };
    FlagSet::new([
        spec("pre-vote", Kind::Bool, "true"),
        spec("name", Kind::Text, "default"),
        spec("election-timeout", Kind::Uint, "1000"),
        spec("streams", Kind::Uint32, "4294967295"),
        spec("wait", Kind::Duration, "5s"),
        spec("urls", Kind::Urls { allowed: &[""] }, "http://localhost:2379"),
        spec("outputs", Kind::UniqueTexts, "default"),
        spec("state", Kind::OneOf(&["new", "existing"]), ""),
        spec("v2", Kind::SomeOf(&["write-only", "gone"]), ""),
        spec("v", Kind::Ignored, ""),
    ])
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

#[test]
fn arguments_are_refused_in_gos_words() {
    for (line, want) in [
        ("--nope", "flag provided but not defined: -nope"),
        ("-nope=1", "flag provided but not defined: -nope"),
        ("---x", "bad flag syntax: ---x"),
        ("-=x", "bad flag syntax: -=x"),
        ("--=x", "bad flag syntax: --=x"),
        ("--name", "flag needs an argument: -name"),
        ("--election-timeout=zz", "invalid value \"zz\" for flag -election-timeout: parse error"),
        ("--election-timeout=-1", "invalid value \"-1\" for flag -election-timeout: parse error"),
        (
            "--election-timeout 99999999999999999999",
            "invalid value \"99999999999999999999\" for flag -election-timeout: value out of range",
        ),
        (
            "--streams=-1",
            "invalid value \"-1\" for flag -streams: strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        ("--pre-vote=maybe", "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        ("--wait=5", "invalid value \"5\" for flag -wait: parse error"),
        ("--state=foo", "invalid value \"foo\" for flag -state: invalid value"),
        ("--v2=not-yet", "invalid value \"not-yet\" for flag -v2: invalid value \"not-yet\""),
    ] {
        let refused = flags().parse(&words(line));
        assert_eq!(refused, Err(ParseError::Bad(want.to_owned())), "{line}");
    }
}

#[test]
fn flags_end_at_the_first_argument_that_is_none() {
    let mut flags = flags();
    let rest = flags.parse(&words("-pre-vote=F foo --name x")).unwrap();
    assert_eq!(rest, ["foo", "--name", "x"]);
    assert!(!flags.bool("pre-vote"));
    assert_eq!(flags.text("name"), "default");
    assert_eq!(super::FlagSet::parse(&mut flags, &words("-- --name")).unwrap(), ["--name"]);
    assert_eq!(super::FlagSet::parse(&mut flags, &words("- --name")).unwrap(), ["-", "--name"]);
}

#[test]
fn a_bare_boolean_takes_no_value_and_the_last_of_a_repeated_flag_wins() {
    let mut flags = flags();
    let rest = flags.parse(&words("--pre-vote false")).unwrap();
    assert_eq!(rest, ["false"]);
    assert!(flags.bool("pre-vote"));
    flags.parse(&words("--name a -name=b --v --v=zz")).unwrap();
    assert_eq!(flags.text("name"), "b");
    assert!(flags.is_set("v") && !flags.is_set("wait"));
}

#[test]
fn help_is_asked_for_only_after_the_flags_before_it_were_good() {
    assert_eq!(flags().parse(&words("-h")), Err(ParseError::Help));
    assert_eq!(flags().parse(&words("--name x --help")), Err(ParseError::Help));
    assert!(matches!(flags().parse(&words("--nope -h")), Err(ParseError::Bad(_))));
}

#[test]
fn an_empty_list_of_urls_keeps_the_default() {
    let mut flags = flags();
    flags.parse(&words("--urls=")).unwrap();
    assert_eq!(texts(&flags.urls("urls")), ["http://localhost:2379"]);
    flags.parse(&words("--urls=http://b:1,http://a:1,http://b:1")).unwrap();
    assert_eq!(texts(&flags.urls("urls")), ["http://a:1", "http://b:1"]);
}
