use chrono_tz::Tz;

use super::*;

/// 2026-11-20T12:04:59.871203Z, 13:04:59 in Berlin.
const NOW: Timestamp = Timestamp(1_795_176_299_871_203_000);
const BERLIN: Zone = Zone::Named(Tz::Europe__Berlin);

fn read(text: &str) -> Result<Point> {
    Point::parse(text, NOW, &BERLIN)
}

fn time(text: &str) -> String {
    match read(text) {
        Ok(Point::Time(time)) => rfc3339(time),
        other => panic!("{text}: {other:?}"),
    }
}

/// Message and hint of a refusal.
fn refusal(text: &str) -> String {
    match read(text) {
        Err(error) => {
            assert_eq!(error.code(), 2, "{text}");
            format!("{error} | {}", error.hint_text().unwrap_or(""))
        }
        Ok(point) => panic!("{text} was read as {point:?}"),
    }
}

#[test]
fn instants_with_an_offset() {
    let cases = [
        ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00.000000000Z"),
        ("2026-11-20t12:00:00z", "2026-11-20T12:00:00.000000000Z"),
        ("2026-11-20 12:00:00+09:00", "2026-11-20T03:00:00.000000000Z"),
        ("2026-11-20 12:00:00 +09:00", "2026-11-20T03:00:00.000000000Z"),
        ("2026-11-20 12:00:00+0900", "2026-11-20T03:00:00.000000000Z"),
        ("2026-11-20 12:00:00 -04", "2026-11-20T16:00:00.000000000Z"),
        ("2026-11-20 12:00:00-04", "2026-11-20T16:00:00.000000000Z"),
        ("2026-11-20 12:00-04", "2026-11-20T16:00:00.000000000Z"),
        ("2026-11-20T12:00+05:45", "2026-11-20T06:15:00.000000000Z"),
        ("2026-11-20T12:00:00-00:00", "2026-11-20T12:00:00.000000000Z"),
        ("  2026-11-20T12:00:00Z  ", "2026-11-20T12:00:00.000000000Z"),
    ];
    for (text, expected) in cases {
        assert_eq!(time(text), expected, "{text}");
    }
}

#[test]
fn one_to_nine_digits() {
    let digits = "123456789";
    for count in 1..=9 {
        let text = format!("2026-11-20T12:00:00.{}Z", &digits[..count]);
        assert_eq!(time(&text), format!("2026-11-20T12:00:00.{:0<9}Z", &digits[..count]));
    }
    assert_eq!(time("2026-11-20 13:00:00,5"), "2026-11-20T12:00:00.500000000Z");
    assert!(refusal("2026-11-20T12:00:00.1234567890Z").contains("at most nine digits"));
    assert!(refusal("2026-11-20T12:00:00.Z").contains("after the point come digits"));
    assert!(refusal("2026-11-20T12:00.5Z").contains("a time is written"));
}

#[test]
fn local_time_and_named_zones() {
    assert_eq!(time("2026-11-20 12:00"), "2026-11-20T11:00:00.000000000Z");
    assert_eq!(time("2026-11-20T12:00"), "2026-11-20T11:00:00.000000000Z");
    assert_eq!(time("2026-07-01 12:00:15.25"), "2026-07-01T10:00:15.250000000Z");
    assert_eq!(time("2026-11-20 12:00 Asia/Tokyo"), "2026-11-20T03:00:00.000000000Z");
    assert_eq!(time("2026-07-01 12:00 America/New_York"), "2026-07-01T16:00:00.000000000Z");
    assert_eq!(time("2026-11-20 12:00 UTC"), "2026-11-20T12:00:00.000000000Z");
    assert!(refusal("2026-11-20 12:00 Europe/Atlantis").contains("`Europe/Atlantis` is not a time zone"));
    assert!(refusal("2026-11-20 12:00 PM").contains("`PM` is not a time zone"));
}

#[test]
fn a_doubled_hour_is_refused_with_both_spellings_in_order() {
    let told = refusal("2026-10-25 02:30");
    assert!(told.contains("2026-10-25 02:30:00 happened twice in Europe/Berlin"), "{told}");
    assert!(told.ends_with("write 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00"), "{told}");
    for (text, expected) in [
        ("2026-10-25T02:30:00+02:00", "2026-10-25T00:30:00.000000000Z"),
        ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00.000000000Z"),
        ("2026-10-25 01:59:59.999999999", "2026-10-24T23:59:59.999999999Z"),
        ("2026-10-25 03:00", "2026-10-25T02:00:00.000000000Z"),
    ] {
        assert_eq!(time(text), expected, "{text}");
    }
    assert!(
        refusal("2026-11-01 01:30 America/New_York")
            .contains("write 2026-11-01T01:30:00-04:00 or 2026-11-01T01:30:00-05:00")
    );
}

#[test]
fn a_skipped_hour_is_refused_with_both_spellings_in_order() {
    let told = refusal("2026-03-29 02:30");
    assert!(told.contains("2026-03-29 02:30:00 never happened in Europe/Berlin"), "{told}");
    assert!(told.ends_with("write 2026-03-29T01:30:00+01:00 or 2026-03-29T03:30:00+02:00"), "{told}");
    assert_eq!(time("2026-03-29T01:30:00+01:00"), "2026-03-29T00:30:00.000000000Z");
    assert_eq!(time("2026-03-29 03:00"), "2026-03-29T01:00:00.000000000Z");
    assert_eq!(time("2026-03-29 01:59:59"), "2026-03-29T00:59:59.000000000Z");
}

#[test]
fn today_but_not_later_today() {
    assert_eq!(time("12:30"), "2026-11-20T11:30:00.000000000Z");
    assert_eq!(time("13:04:59.871203"), "2026-11-20T12:04:59.871203000Z");
    assert_eq!(time("00:00"), "2026-11-19T23:00:00.000000000Z");
    assert_eq!(time("21:00 Asia/Tokyo"), "2026-11-20T12:00:00.000000000Z");
    let told = refusal("13:05");
    assert!(told.contains("still to come today") && told.contains("2026-11-19 13:05:00"), "{told}");
    assert!(refusal("25:00").contains("no clock shows 25:00"));
    assert!(refusal("12:60").contains("no clock shows 12:60"));
    assert!(refusal("12:30:60").contains("leap second"));
    assert!(refusal("24:00").contains("no clock shows"));
    assert!(refusal("9:30").contains("a time is written"));
    assert!(refusal("12").contains("a time is written"));
}

#[test]
fn a_bare_date_is_refused_with_both_ends() {
    let told = refusal("2026-11-20");
    assert!(told.contains("is a whole day") && told.contains("'2026-11-20 00:00'"), "{told}");
    assert!(told.contains("'2026-11-20 23:59:59.999999999'"), "{told}");
    assert!(refusal("2026-11-20 ").contains("whole day"));
}

#[test]
fn days_that_exist_and_days_that_do_not() {
    assert_eq!(time("2028-02-29T00:00:00Z"), "2028-02-29T00:00:00.000000000Z");
    assert_eq!(time("2000-02-29T00:00:00Z"), "2000-02-29T00:00:00.000000000Z");
    for text in ["2026-02-29 12:00", "1900-02-29 12:00", "2026-13-01 12:00", "2026-00-10 12:00", "2026-11-31 12:00"] {
        assert!(refusal(text).contains("there is no day"), "{text}");
    }
    for text in ["26-11-20 12:00", "2026-1-2 12:00", "2026-11 12:00", "20261120 12:00", "2026-11-20-01 12:00"] {
        assert!(refusal(text).contains("is written"), "{text}");
    }
}

#[test]
fn before_1970_and_the_ends_of_time() {
    assert_eq!(time("1969-12-31T23:59:59.5Z"), "1969-12-31T23:59:59.500000000Z");
    assert_eq!(time("@-0.5"), "1969-12-31T23:59:59.500000000Z");
    assert_eq!(time("1900-01-01 00:00 UTC"), "1900-01-01T00:00:00.000000000Z");
    assert!(refusal("1500-01-01 00:00 UTC").contains("1677 to 2262"));
    assert!(refusal("9999-01-01T00:00:00Z").contains("1677 to 2262"));
    assert!(refusal("@99999999999999999999999999999999999999999999").contains("1677 to 2262"));
    assert!(refusal("@9223372037").contains("1677 to 2262"));
}

#[test]
fn unix_time_and_never_a_name() {
    assert_eq!(time("@1763600000"), "2025-11-20T00:53:20.000000000Z");
    assert_eq!(time("@1763600000.5"), "2025-11-20T00:53:20.500000000Z");
    assert_eq!(time("@0"), "1970-01-01T00:00:00.000000000Z");
    assert!(refusal("@before-upgrade").contains("marker:before-upgrade"));
    assert!(refusal("@").contains("not seconds since 1970"));
    assert!(refusal("@1.").contains("after the point come digits"));
}

#[test]
fn before_now() {
    for (text, expected) in [
        ("-2h", "2026-11-20T10:04:59.871203000Z"),
        ("-1h30m", "2026-11-20T10:34:59.871203000Z"),
        ("2h ago", "2026-11-20T10:04:59.871203000Z"),
        ("2 days ago", "2026-11-18T12:04:59.871203000Z"),
        ("90min ago", "2026-11-20T10:34:59.871203000Z"),
        ("1 week ago", "2026-11-13T12:04:59.871203000Z"),
        ("-10s", "2026-11-20T12:04:49.871203000Z"),
        ("-1ns", "2026-11-20T12:04:59.871202999Z"),
        ("0s ago", "2026-11-20T12:04:59.871203000Z"),
    ] {
        assert_eq!(time(text), expected, "{text}");
    }
    for text in ["-5M", "3 months ago", "-1y", "1 year ago"] {
        assert!(refusal(text).contains("differ in length"), "{text}");
    }
    assert!(refusal("-2").contains("-1h30m"));
    assert!(refusal("two hours ago").contains("-1h30m"));
    assert!(refusal("-99999999999h").contains('`'));
    assert!(refusal("-999999w").contains("1677 to 2262"));
}

#[test]
fn numbers_tapes_and_words() {
    for (text, point) in [
        ("seq:4711", Point::Seq(Seq(4711))),
        ("#4711", Point::Seq(Seq(4711))),
        ("tape:docs-000042", Point::Tape("docs-000042".into())),
        ("latest", Point::Latest),
        ("oldest", Point::Oldest),
        ("last-base", Point::LastBase),
        ("last-marker", Point::LastMarker),
        ("last-quiet", Point::LastQuiet),
    ] {
        assert_eq!(read(text).expect(text), point);
    }
    for text in ["seq:", "#", "seq:-1", "seq:+1", "seq:1.5", "#x", "seq:99999999999999999999"] {
        assert!(refusal(text).contains("not a sequence number"), "{text}");
    }
    assert!(refusal("seq:0").contains("begin at 1"));
    assert!(refusal("tape:").contains("names no tape"));
    assert!(refusal("now").contains("`latest`"));
    assert!(refusal("").contains("empty"));
    assert!(refusal("yesterday").contains("write the date"));
    assert!(refusal("before-upgrade").contains("marker:before-upgrade"));
    assert!(refusal("LATEST").contains("not a point"));
}

#[test]
fn markers_and_how_far_back() {
    let marker = |name: &str, back| Point::Marker { name: name.into(), back };
    assert_eq!(read("marker:before-upgrade").expect("marker"), marker("before-upgrade", 0));
    assert_eq!(read("marker:a b:c").expect("marker"), marker("a b:c", 0));
    assert_eq!(read("marker:nightly~1").expect("marker"), marker("nightly", 0));
    assert_eq!(read("marker:nightly~2").expect("marker"), marker("nightly", 1));
    assert_eq!(read("nightly~2").expect("marker"), marker("nightly", 1));
    for text in ["marker:nightly~", "marker:nightly~0", "marker:nightly~x", "marker:nightly~-1", "marker:nightly~+1"] {
        assert!(refusal(text).contains("after `~` comes a number"), "{text}");
    }
    assert!(refusal("marker:").contains("it is empty"));
    assert!(refusal("marker:~2").contains("it is empty"));
}

#[test]
fn marker_names_that_can_be_found_again() {
    for name in ["a", "before-upgrade", "nightly 2026-11-20", "\u{e9}t\u{e9}", &"x".repeat(128)] {
        assert!(check_marker_name(name).is_ok(), "{name}");
        assert_eq!(read(&format!("marker:{name}")).expect(name), Point::Marker { name: name.into(), back: 0 });
    }
    for name in ["", "a~2", "a\nb", " a", "a ", &"x".repeat(129)] {
        assert_eq!(check_marker_name(name).expect_err(name).code(), 2);
    }
}

#[test]
fn what_is_printed_reads_back() {
    for text in [
        "latest",
        "oldest",
        "last-base",
        "last-marker",
        "seq:7",
        "marker:m",
        "marker:m~3",
        "tape:t",
        "@-5.25",
        "12:30",
        "2026-11-20T12:00:00.123456789Z",
    ] {
        let point = read(text).expect(text);
        assert_eq!(read(&point.to_string()).expect(text), point, "{text} printed as {point}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = read(&text);
    }

    #[test]
    fn no_text_of_the_right_letters_panics(text in "[-0-9:TZ.+@#~ a-z]{0,30}") {
        let _ = read(&text);
    }

    #[test]
    fn every_instant_reads_back(nanos: i64) {
        let point = Point::Time(Timestamp(nanos));
        proptest::prop_assert_eq!(read(&point.to_string()).expect("its own spelling"), point);
        let local = BERLIN.text(Timestamp(nanos));
        // local mean time of the 19th century has offsets with seconds, which no spelling holds
        if nanos > 0 {
            proptest::prop_assert_eq!(read(&local).expect("as printed"), Point::Time(Timestamp(nanos)));
        }
    }
}
