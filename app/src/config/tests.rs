//! What is accepted, and the exact words of what is not.
#![allow(clippy::unwrap_used)]

use mos_hal::device_tree::LensOverride;
use mos_hal::gmsl::bring_up::{Csi, SetUp};

use super::*;
use crate::access::{Role, Token, TokenHash};
use crate::upload::named::CredentialSource;

const SMALLEST: &str = r#"
[storage]
root = "/data/mos"

[[camera]]
id = "road"
source = "test:"
"#;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    parse(Path::new("mos.toml"), text, variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

fn refusal(text: &str, variables: &[(&str, &str)]) -> String {
    read(text, variables).unwrap_err().to_string()
}

fn with_storage(line: &str) -> String {
    format!("[storage]\nroot = \"/data\"\n{line}\n")
}

#[test]
fn the_smallest_file_has_safe_defaults() {
    let config = read(SMALLEST, &[]).unwrap();
    assert_eq!(config.storage.segment, Duration::from_secs(30));
    assert_eq!(config.storage.max_bytes, None);
    assert_eq!(config.http.unix_socket, Path::new("/run/mos/mos.sock"));
    assert_eq!(config.http.tcp, None);
    assert_eq!(config.cameras.len(), 1);
    assert!(!config.cameras[0].audio, "sound is recorded only when asked for");
}

#[test]
fn the_transport_is_one_that_there_is_and_a_network_cameras() {
    let camera = |source: &str, transport: &str| {
        format!(
            "[storage]\nroot = \"/d\"\n[[camera]]\nid = \"a\"\nsource = \"{source}\"\ntransport = \"{transport}\"\n"
        )
    };
    for name in ["auto", "tcp", "udp"] {
        let config = read(&camera("rtsp://u:hunter2@h/s", name), &[]).unwrap();
        let SourceSpec::Rtsp { transport, .. } = config.cameras[0].source else { panic!("no network camera") };
        assert_eq!(transport.name(), name);
    }
    for bad in [camera("rtsp://u:hunter2@h/s", "quic"), camera("test:", "udp")] {
        let text = refusal(&bad, &[]);
        assert!(text.contains("transport") && text.contains("udp") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn whose_certificate_is_believed_is_said_once_and_of_what_is_encrypted() {
    let camera = |source: &str, more: &str| {
        format!("[storage]\nroot = \"/d\"\n[[camera]]\nid = \"a\"\nsource = \"{source}\"\n{more}\n")
    };
    let pin = format!("tls_fingerprint = \"{}\"", ["0A"; 32].join(":"));
    let config = read(&camera("rtsps://u:hunter2@h/s", &pin), &[]).unwrap();
    assert_eq!(config.cameras[0].source.trust().unwrap().fingerprint.unwrap().0, [10; 32]);
    let config = read(&camera("onvifs://h", "tls_ca = \"/ca.pem\""), &[]).unwrap();
    assert_eq!(config.cameras[0].source.trust().unwrap().ca.as_deref(), Some(Path::new("/ca.pem")));
    assert!(!config.cameras[0].source.trust().unwrap().plain_stream);
    let config = read(&camera("onvifs://h", "plain_stream = true"), &[]).unwrap();
    assert!(config.cameras[0].source.trust().unwrap().plain_stream);
    for (source, more, word) in [
        ("rtsp://u:hunter2@h/s", pin.as_str(), "rtsps://"),
        ("test:", "tls_ca = \"/ca.pem\"", "rtsps://"),
        // It would protect nothing: who is asked in clear says anything.
        ("onvif://u:hunter2@h", pin.as_str(), "onvifs://"),
        ("rtsps://u:hunter2@h/s", "plain_stream = true", "onvifs://"),
        ("onvif://u:hunter2@h", "plain_stream = true", "onvifs://"),
        ("rtsps://u:hunter2@h/s", "tls_ca = \"ca.pem\"", "absolute"),
        ("rtsps://u:hunter2@h/s", "tls_fingerprint = \"0A:0B\"", "64 hexadecimal"),
        ("rtsps://u:hunter2@h/s", &format!("{pin}\ntls_ca = \"/ca.pem\""), "one of them"),
        ("rtsps://u:hunter2@h/s", "transport = \"udp\"", "rtsps://"),
    ] {
        let text = refusal(&camera(source, more), &[]);
        assert!(text.contains(word) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn events_of_onvif_cameras_protect_what_is_around_them() {
    let camera = |source: &str, more: &str| {
        format!("[storage]\nroot = \"/d\"\n[[camera]]\nid = \"a\"\nsource = \"{source}\"\n{more}\n")
    };
    assert!(read(&camera("onvif://h", ""), &[]).unwrap().cameras[0].triggers.events.is_empty());
    let text = camera("onvif://h", "events = \"digital_input motion\"\nprotect_before = \"1min\"");
    let plan = read(&text, &[]).unwrap().cameras.remove(0).triggers;
    let names: Vec<&str> = plan.events.iter().map(|kind| kind.name()).collect();
    assert_eq!(names, ["motion", "digital_input"]);
    assert_eq!((plan.before, plan.after), (Duration::from_mins(1), Duration::from_secs(20)));
    let text = refusal(&camera("onvif://h", "events = \"motion\"\nprotect_before = \"61min\""), &[]);
    assert!(text.contains("protect_before") && text.contains("1 h"), "{text}");
    for (source, more) in [("rtsp://h/s", "events = \"motion\""), ("onvif://h", "events = \"doorbell\"")] {
        let text = refusal(&camera(source, more), &[]);
        assert!(text.contains("events") && text.contains("tamper"), "{text}");
    }
}

#[test]
fn the_board_may_describe_itself_elsewhere() {
    let live = read(SMALLEST, &[]).unwrap().board;
    assert_eq!((live.device_tree.as_path(), live.sysfs.as_path()), (Path::new("/proc/device-tree"), Path::new("/sys")));
    let text = format!("{SMALLEST}\n[board]\ndevice_tree = \"/rig/tree\"\n");
    let rig = read(&text, &[("MOS_BOARD__SYSFS", "/rig/sys")]).unwrap().board;
    assert_eq!((rig.device_tree.as_path(), rig.sysfs.as_path()), (Path::new("/rig/tree"), Path::new("/rig/sys")));
    assert!(!live.production && read(SMALLEST, &[("MOS_BOARD__PRODUCTION", "true")]).unwrap().board.production);
    assert!(refusal(&text.replace("/rig/tree", "tree"), &[]).contains("board.device_tree"));
}

#[test]
fn parking_has_its_lenses_and_the_ignition_may_lead_there() {
    let usual = read(SMALLEST, &[]).unwrap().power;
    assert_eq!((usual.ignition.clone(), usual.parking.len(), usual.follow_ignition), (None, 0, false));
    let text = format!(
        "{SMALLEST}\n[board]\nignition_line = \"IGN\"\n[power]\nrun_out = \"30min\"\nparking_lenses = \"road rear\"\n\
         follow_ignition = true\n"
    );
    let plan = read(&text, &[]).unwrap().power;
    assert_eq!((plan.run_out, plan.follow_ignition), (Duration::from_mins(30), true));
    assert_eq!(plan.parking.iter().map(LensId::as_str).collect::<Vec<_>>(), ["road", "rear"]);
    assert!(refusal(&text.replace("ignition_line = \"IGN\"", ""), &[]).contains("power.follow_ignition"));
    assert!(refusal(&text.replace("rear", "Rear!"), &[]).contains("power.parking_lenses"));
}

#[test]
fn lenses_of_the_board_may_be_changed() {
    let text = format!("{SMALLEST}\n[[board_lens]]\nname = \"left\"\nrotation = 180\n");
    let lenses = read(&text, &[("MOS_BOARD_LENS__LEFT__CAMERA_INDEX", "3")]).unwrap().board.lenses;
    let left = LensId::new("left").unwrap();
    let (role, camera_index, rotation) = (None, Some(3), Some(180));
    assert_eq!(lenses, [LensOverride { name: left, role, camera_index, rotation, power_line: None, disabled: false }]);
    for (more, told) in [
        ("rotation = 45", "accepted: 0, 90, 180 or 270"),
        ("camera_index = 33", "a whole number from 0 to 32"),
        ("role = \"\"", "1 to 64 visible"),
        ("[[board_lens]]\nname = \"left\"", "a lens that is not changed before; mos.toml:"),
        ("[[board_lens]]\nrole = \"x\"", "board_lens[1].name is missing"),
        ("name_ = 1", "accepted: name, role, camera_index, rotation, power_line, disabled"),
    ] {
        let why = refusal(&text.replace("rotation = 180", more), &[]);
        assert!(why.contains(told), "{why}");
    }
}

#[test]
fn lines_of_the_box_are_named_once() {
    let with = |lines: &str| format!("{SMALLEST}\n[board]\n{lines}\n");
    let lines = read(&with("status_line = \"!gpiochip3:12\"\nignition_line = \"IGN\""), &[]).unwrap().lines;
    assert_eq!(lines.status.unwrap().to_string(), "!gpiochip3:12");
    assert_eq!((lines.wake, lines.ignition.unwrap().to_string().as_str()), (None, "IGN"));
    assert!(refusal(&with("wake_line = \"chip:1\""), &[]).contains("a line is gpiochipN:OFFSET or the line's name"));
    let twice = refusal(&with("status_line = \"!LED\"\nignition_line = \"LED\""), &[]);
    assert!(twice.contains("board.ignition_line") && twice.contains("no other key names"), "{twice}");
}

#[test]
fn gmsl_chips_are_set_up_only_if_asked_for() {
    assert_eq!(read(SMALLEST, &[]).unwrap().board.gmsl, None);
    let text = format!("{SMALLEST}\n[board]\ngmsl_bring_up = true\ngmsl_csi_mbps = 1200\ngmsl_data_type = \"raw10\"\n");
    let csi = Csi { controller: 1, lanes: 4, mbps: 1200 };
    assert_eq!(read(&text, &[]).unwrap().board.gmsl, Some(SetUp { csi, data_type: 0x2B }));
    let why = refusal(&text.replace("1200", "1250"), &[]);
    assert!(why.contains("a multiple of 100 from 100 to 1500"), "{why}");
    let lens = "[[board_lens]]\nname = \"left\"\npower_line = \"!gpiochip3:0\"";
    let left = &read(&format!("{SMALLEST}\n{lens}"), &[]).unwrap().board.lenses[0];
    assert_eq!(left.power_line.as_ref().unwrap().to_string(), "!gpiochip3:0");
}

#[test]
fn the_example_parses_and_mentions_every_key() {
    let text = include_str!("../../mos.toml");
    read(text, &[]).unwrap();
    for (section, keys) in KEYS {
        let header = match section {
            Section::Camera | Section::Destination | Section::BoardLens | Section::Token => {
                format!("[[{}]]", section.name())
            }
            _ => format!("[{}]", section.name()),
        };
        let body = text.split(&header).nth(1).unwrap_or_else(|| panic!("no {header} in the example"));
        let body = body.split("\n[").next().unwrap();
        for key in *keys {
            let shown = body.lines().any(|l| l.trim_start_matches(['#', ' ']).starts_with(&format!("{key} =")));
            assert!(shown, "{header} of the example does not show {key}");
        }
    }
}

#[test]
fn the_example_is_valid_with_every_key_switched_on() {
    let on: Vec<String> = include_str!("../../mos.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // `#key = value` is a switched-off setting, `# text` a comment; a token in the file excludes a token file.
            Some(setting) if !setting.starts_with(' ') && !setting.starts_with("token_file") => setting.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let config = read(&on.join("\n"), &[]).unwrap();
    let names: Vec<_> = config.http.tcp.unwrap().tokens.iter().map(|token| token.name.to_string()).collect();
    assert_eq!(names, ["http.token", "depot"]);
    assert_eq!(config.context["vehicle_id"], "bus-7");
    assert_eq!(config.destinations[0].uri(), "sftp://fleet@192.0.2.20/incoming/{vehicle_id}/{lens}/{start_ts}.mp4");
}

#[test]
fn beyond_loopback_there_is_tls_or_a_word_for_plain_text() {
    let with = |lines: &str| read(&format!("{SMALLEST}\n[http]\ntoken = \"0123456789abcdef\"\n{lines}"), &[]);
    let tls = "tls_certificate = \"/c\"\ntls_key = \"/k\"\nhost_names = \"a.example b\"";
    let tcp = with(&format!("listen = \"0.0.0.0:1\"\n{tls}")).unwrap().http.tcp.unwrap();
    assert_eq!((tcp.tls, tcp.host_names.len()), (Some(("/c".into(), "/k".into())), 2));
    assert!(with("listen = \"[::]:1\"\nplain_text = true").unwrap().http.tcp.is_some());
    for (lines, told) in [
        ("listen = \"0.0.0.0:1\"", "beyond loopback tls_certificate and tls_key besides, or plain_text = true"),
        ("listen = \"127.0.0.1:1\"\ntls_key = \"/k\"", "http.tls_certificate is missing"),
        ("tls_certificate = \"/c\"", "http.tls_key is missing"),
        ("host_names = \"a:1\"", "without ports"),
        ("listen = \"here:1\"", "an address and a port"),
    ] {
        let why = with(lines).unwrap_err().to_string();
        assert!(why.contains(told), "{why}");
    }
}

#[test]
fn evidence_is_kept_only_if_asked_for() {
    assert_eq!(read(SMALLEST, &[]).unwrap().evidence, None);
    let on = ("MOS_EVIDENCE__ENABLED", "true");
    assert_eq!(read(SMALLEST, &[on]).unwrap().evidence, Some("/data/mos/device.key".into()));
    let file = ("MOS_EVIDENCE__KEY_FILE", "/etc/mos/key");
    assert_eq!(read(SMALLEST, &[on, file]).unwrap().evidence, Some("/etc/mos/key".into()));
}

#[test]
fn tokens_and_users_have_roles() {
    let hash = TokenHash::of("secret").to_string();
    let text =
        format!("{SMALLEST}\n[http]\nlisten = \"127.0.0.1:0\"\noperators = \"1001 @root\"\nother_users = \"none\"\n");
    let token = format!("[[token]]\nname = \"depot\"\nrole = \"viewer\"\nhash = \"{hash}\"\n");
    let http = read(&format!("{text}{token}"), &[("MOS_TOKEN__DEPOT__ROLE", "operator")]).unwrap().http;
    let tokens = http.tcp.unwrap().tokens;
    assert_eq!(tokens, [Token { name: "depot".into(), role: Role::Operator, hash: TokenHash::of("secret") }]);
    assert_eq!(http.users.role(4_000_000_000, &[0]), Some(Role::Operator));
    assert_eq!(http.users.role(4_000_000_000, &[]), None);
    assert!(refusal(&text, &[]).contains("http.token is missing"));
    for (from, to, told) in [
        ("viewer", "owner", "accepted: viewer, operator or admin"),
        ("\"none\"", "\"some\"", "accepted: none, viewer"),
        ("@root", "@nobody-has-this-name", "users and @groups"),
        ("sha256:", "", "token 'depot'.hash is refused; accepted: sha256:"),
        ("depot", "De pot", "token[0].name"),
        ("[[token]]", &format!("{token}[[token]]"), "no other token has; mos.toml:"),
    ] {
        let why = refusal(&format!("{text}{token}").replacen(from, to, 1), &[]);
        assert!(why.contains(told), "{why}");
    }
}

const DEPOT: &str = r#"
[context]
vehicle_id = "bus 7"
[[destination]]
name = "depot"
host = "vault.example"
user = "fleet"
path = "/in/{vehicle_id}/"
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"#;

#[test]
fn a_destination_has_all_that_a_connection_needs() {
    let with = |lines: &str| read(&format!("{SMALLEST}{DEPOT}{lines}"), &[]);
    let sources = [
        ("key_file = \"/k\"", CredentialSource::KeyFile { path: "/k".into(), passphrase: None }),
        (
            "key_env = \"K\"\npassphrase_env = \"P\"",
            CredentialSource::KeyVariable { key: "K".into(), passphrase: Some("P".into()) },
        ),
        ("password_env = \"P\"", CredentialSource::PasswordVariable("P".into())),
        ("agent = \"/run/agent\"", CredentialSource::Agent(Some("/run/agent".into()))),
        ("agent = \"env\"", CredentialSource::Agent(None)),
    ];
    for (lines, source) in sources {
        assert_eq!(with(lines).unwrap().destinations[0].credential, source, "{lines}");
    }
    for (lines, key) in [
        ("", "key_file"),
        ("key_file = \"/k\"\nagent = \"env\"", "key_file"),
        ("key_file = \"k\"", "key_file"),
        ("password_env = \"P\"\npassphrase_env = \"Q\"", "passphrase_env"),
        ("agent = \"nowhere\"", "agent"),
        ("key_file = \"/k\"\nport = 0", "port"),
        ("key_file = \"/k\"\nmax_rate = 1", "max_rate"),
        ("key_file = \"/k\"\npassword = \"p\"", "password"),
    ] {
        assert!(with(lines).unwrap_err().to_string().contains(key), "{lines}");
    }
    let changed = |from: &str, to: &str| {
        let text = format!("{SMALLEST}{}key_file = \"/k\"\n", DEPOT.replace(from, to));
        read(&text, &[]).unwrap_err().to_string()
    };
    assert!(changed("{vehicle_id}", "{vehicle}").contains("{vehicle}"));
    assert!(changed("/in/", "/in/../").contains("'..'"));
    assert!(changed("\"/in/", "\"in/").contains("does not start"));
    assert!(changed("vault.example", "-oProxy").contains("host"));
    assert!(changed("SHA256:AAA", "MD5:AAA").contains("host_key"));
    assert!(changed("depot", "De pot").contains("name"));
    assert!(changed("vehicle_id = \"bus 7\"", "lens = \"x\"").contains("files bring along"));
    assert!(changed("\"bus 7\"", "\"\"").contains("1 to 128"));
    let set = [("MOS_DESTINATION__DEPOT__HOST", "other.example"), ("MOS_CONTEXT__ROUTE", "12")];
    let config = read(&format!("{SMALLEST}{DEPOT}key_file = \"/k\""), &set).unwrap();
    assert_eq!(config.destinations[0].endpoint.host, "other.example");
    assert_eq!(config.context.into_iter().collect::<Vec<_>>().len(), 2);
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    let config = read(
        SMALLEST,
        &[
            ("MOS_STORAGE__ROOT", "/mnt/ssd"),
            ("MOS_STORAGE__SEGMENT_SECONDS", "600"),
            ("MOS_STORAGE__MAX_BYTES", "64GiB"),
            ("MOS_STORAGE__MAX_AGE", "30d"),
            ("MOS_STORAGE__MIN_FREE_BYTES", "0"),
            ("MOS_STORAGE__PROTECTED_MAX_BYTES", "10GiB"),
            ("MOS_STORAGE__QUARANTINE_MAX_AGE", "7d"),
            ("MOS_CAMERA__0__SHARE", "0.25"),
            ("MOS_STORAGE__OUTPUT_MAX_BYTES", "1GiB"),
            ("MOS_STORAGE__OUTPUT_MAX_AGE", "7d"),
            ("MOS_STORAGE__BUFFER_BYTES", "8MiB"),
            ("MOS_HTTP__UNIX_SOCKET", "/tmp/mos.sock"),
            ("MOS_HTTP__LISTEN", "[::1]:0"),
            ("MOS_HTTP__TOKEN", "0123456789abcdef"),
            ("MOS_LOG__LEVEL", "debug"),
            ("MOS_CAMERA__0__AUDIO", "true"),
            ("MOS_CAMERA__1__ID", "cabin"),
            ("MOS_CAMERA__1__SOURCE", "test:"),
            ("MOS_CAMERA__CABIN__AUDIO", "true"),
            ("MOS_SOCKET", "not a setting"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(config.storage.root, Path::new("/mnt/ssd"));
    assert_eq!(config.storage.segment, Duration::from_mins(10));
    assert_eq!(config.storage.max_bytes, Some(64 << 30));
    assert_eq!(config.storage.max_age, Some(Duration::from_hours(30 * 24)));
    let protection = Protection { max_bytes: 10 << 30, alarm_bytes: 8 << 30 };
    assert_eq!(config.storage.protection, Some(protection));
    assert_eq!(config.cameras[0].share, Share::new(0.25));
    assert_eq!(config.storage.output_max_age, Duration::from_hours(7 * 24));
    assert_eq!(config.http.tcp.unwrap().listen.to_string(), "[::1]:0");
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    let ids: Vec<&str> = config.cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(ids, ["road", "cabin"]);
    assert!(config.cameras.iter().all(|camera| camera.audio));
}

#[test]
fn refusals_name_the_place_the_key_and_what_is_accepted() {
    assert_eq!(
        refusal(&with_storage("segment_seconds = 900"), &[]),
        "mos.toml:3: storage.segment_seconds = 900 is refused; accepted: a whole number from 1 to 600"
    );
    assert_eq!(
        refusal(SMALLEST, &[("MOS_STORAGE__SEGMENT_SECONDS", "0")]),
        "environment variable MOS_STORAGE__SEGMENT_SECONDS: storage.segment_seconds = \"0\" is refused; \
         accepted: a whole number from 1 to 600"
    );
    assert_eq!(
        refusal(&with_storage("rot = 1"), &[]),
        "mos.toml:3: unknown key storage.rot; accepted: root, segment_seconds, max_bytes, max_age, min_free_bytes, \
         protected_max_bytes, protected_alarm_bytes, output_max_bytes, output_max_age, quarantine_max_bytes, \
         quarantine_max_age, buffer_bytes"
    );
    assert_eq!(
        refusal("[store]\n", &[]),
        "mos.toml:1: unknown key store; accepted: [storage], [http], [[token]], [evidence], [log], [board], [[board_lens]], [power], \
         [degradation], [[thermal_zone]], [frames], [context], \
         [[camera]], [[destination]]"
    );
    assert_eq!(
        refusal("\n[storage]\nsegment_seconds = 5\n", &[]),
        "mos.toml:2: storage.root is missing; accepted: the archive's folder, absolute"
    );
    assert_eq!(refusal("", &[]), "mos.toml: storage.root is missing; accepted: the archive's folder, absolute");
    assert_eq!(
        refusal("[storage]\nroot = \"data\"", &[]),
        "mos.toml:2: storage.root = \"data\" is refused; accepted: an absolute path"
    );
    assert_eq!(
        refusal(&with_storage("max_bytes = \"64 gigs\""), &[]),
        "mos.toml:3: storage.max_bytes = \"64 gigs\" is refused; accepted: a size in bytes or with KiB, MiB, GiB, TiB, \
         KB, MB, GB, TB, e.g. \"64GiB\", at least 16777216 bytes"
    );
    assert_eq!(
        refusal(&format!("{SMALLEST}[[camera]]\nid = \"road\"\nsource = \"test:\""), &[]),
        "mos.toml:9: camera 'road'.id = \"road\" is refused; accepted: an id that no other camera has; mos.toml:6 has \
         this one too"
    );
    assert_eq!(
        refusal(SMALLEST, &[("MOS_CAMERA__REAR__AUDIO", "true")]),
        "environment variable MOS_CAMERA__REAR__AUDIO: unknown key camera 'rear'; accepted: a place from 0 to 1, or the \
         id of a camera in the file"
    );
    assert_eq!(
        refusal(SMALLEST, &[("MOS_HTTP__LISTEN", "0.0.0.0:8080")]),
        "environment variable MOS_HTTP__LISTEN: http.listen = \"0.0.0.0:8080\" is refused; accepted: 127.0.0.1:PORT or \
         [::1]:PORT; beyond loopback tls_certificate and tls_key besides, or plain_text = true if whoever listens on the way may \
         read footage and tokens"
    );
    assert_eq!(
        refusal(SMALLEST, &[("MOS_HTTP__LISTEN", "127.0.0.1:80")]),
        "environment variable MOS_HTTP__LISTEN: http.token is missing; accepted: 16 or more visible ASCII characters, or \
         token_file, or a [[token]]; TCP always asks for a token"
    );
}

#[test]
fn limits_that_contradict_one_another_are_refused() {
    let with = |lines: &str| refusal(&with_storage(&format!("max_bytes = \"1GiB\"\n{lines}")), &[]);
    assert_eq!(
        with("protected_max_bytes = \"2GiB\""),
        "mos.toml:4: storage.protected_max_bytes = \"2GiB\" is refused; accepted: a size of at most storage.max_bytes"
    );
    assert_eq!(
        with("protected_alarm_bytes = \"600MiB\""),
        "mos.toml:4: storage.protected_alarm_bytes = \"600MiB\" is refused; accepted: a size of at most what may be \
         protected, 536870912 bytes"
    );
    assert!(
        refusal(&with_storage("protected_alarm_bytes = 1"), &[]).contains("protected_max_bytes or max_bytes besides")
    );
    assert_eq!(
        with("max_age = 7"),
        "mos.toml:4: storage.max_age = 7 is refused; accepted: a duration in s, min, h or d, e.g. \"24h\""
    );
    let shares = |a: &str, b: &str| {
        let cameras = format!("{SMALLEST}share = {a}\n[[camera]]\nid = \"b\"\nsource = \"test:\"\nshare = {b}\n");
        read(&cameras, &[]).map(|config| config.cameras[1].share).map_err(|e| e.to_string())
    };
    assert_eq!(shares("0.75", "0.25"), Ok(Share::new(0.25)));
    assert_eq!(shares("1", "0.001").unwrap_err().split("share").next(), Some("mos.toml:12: camera 'b'."));
    for bad in ["0.0", "0", "1.1", "-0.5", "nan", "\"half\"", "true"] {
        assert!(shares(bad, "0.1").unwrap_err().ends_with("accepted: a number above 0 and up to 1, e.g. 0.4"), "{bad}");
    }
}

#[test]
fn credentials_are_in_no_refusal() {
    let secret = "hunter2secret";
    let cases = [
        format!("{SMALLEST}\n[[camera]]\nid = \"b\"\nsource = \"rtps://u:{secret}@h/\""),
        format!("{SMALLEST}\n[[camera]]\nid = \"b\"\nsource = \"rtsp://u:{secret}@h/\"\nsource = 1"),
        format!("{SMALLEST}\n[[camera]]\nid = \"b\"\nsource = \"rtsp://u:{secret}@h/"),
        format!("{SMALLEST}\n[[camera]]\nid = \"b\"\nsource = [\"rtsp://u:{secret}@h/\"]"),
        format!("{SMALLEST}\n[http]\nlisten = \"127.0.0.1:0\"\ntoken = \"{secret}\""),
    ];
    for case in cases {
        let message = refusal(&case, &[]);
        assert!(!message.contains(secret), "{message}");
        assert!(!message.contains('\n'), "one line: {message}");
    }
    let debug = format!("{:?}", read(SMALLEST, &[("MOS_CAMERA__ROAD__SOURCE", "rtsp://u:hunter2@h/s")]).unwrap());
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn no_refusal_steers_a_terminal() {
    let text = "[storage]\nroot = \"/data\"\n\"\\u001b[2J\" = 1\n";
    let refused = parse(Path::new("mos.toml"), text, []).unwrap_err().to_string();
    assert!(refused.contains("u{1b}") && !refused.contains('\u{1b}'), "{refused}");
}
