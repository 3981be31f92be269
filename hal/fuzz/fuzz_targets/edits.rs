//! What fuzz targets do to a good board's tree: a list of properties set, made of the fuzzer's bytes.

/// Files of the good tree, relative to its root.
pub const BOARD: &[(&str, &[u8])] = &[
    ("compatible", b"qcom,qcs6490-rb3gen2\0qcom,qcm6490\0"),
    ("model", b"A board\0"),
    ("i2c@1/#address-cells", &[0, 0, 0, 1]),
    ("i2c@1/#size-cells", &[0, 0, 0, 0]),
    ("i2c@1/camera@1a/compatible", b"sony,imx577\0"),
    ("i2c@1/camera@1a/reg", &[0, 0, 0, 0x1a]),
    ("i2c@1/camera@1a/phandle", &[0, 0, 0, 1]),
    ("i2c@1/gmsl@29/compatible", b"maxim,max96712\0"),
    ("i2c@1/gmsl@29/reg", &[0, 0, 0, 0x29]),
    ("i2c@1/gmsl@29/phandle", &[0, 0, 0, 2]),
    ("mos/compatible", b"mos,lenses\0"),
    ("mos/lens@0/mos,name", b"driver\0"),
    ("mos/lens@0/mos,transport", b"mipi-csi2\0"),
    ("mos/lens@0/mos,sensor", &[0, 0, 0, 1]),
    ("mos/lens@1/mos,name", b"left\0"),
    ("mos/lens@1/mos,role", b"surroundings\0"),
    ("mos/lens@1/mos,transport", b"gmsl2\0"),
    ("mos/lens@1/mos,deserializer", &[0, 0, 0, 2]),
    ("mos/lens@1/mos,serializer", &[0, 0, 0, 1]),
    ("mos/lens@1/mos,link", &[0, 0, 0, 2]),
    ("mos/lens@1/mos,camera-index", &[0, 0, 0, 3]),
    ("mos/lens@1/rotation", &[0, 0, 0, 90]),
    ("mos/lens@1/orientation", &[0, 0, 0, 1]),
];

/// Directories and names beside those of the good tree.
const DIRS: &[&str] =
    &["", "mos", "mos/lens@0", "mos/lens@1", "mos/lens@ff", "mos/lens", "i2c@1", "i2c@1/gmsl@29", "mos/a/b/c"];
const NAMES: &[&str] =
    &["status", "phandle", "reg", "compatible", "model", "mos,name", "mos,sensor", "#address-cells", "\u{1b}[2J"];

/// Path and value of each edit: a byte for the place, a byte for the length, the value.
pub fn edits(mut data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut edits = Vec::new();
    while let [place, len, rest @ ..] = data {
        let place = usize::from(*place);
        let path = match BOARD.get(place) {
            Some((path, _)) => (*path).to_owned(),
            None => format!("{}/{}", DIRS[place % DIRS.len()], NAMES[place / DIRS.len() % NAMES.len()]),
        };
        let value;
        (value, data) = rest.split_at(usize::from(*len).min(rest.len()));
        edits.push((path.trim_start_matches('/').to_owned(), value.to_vec()));
    }
    edits
}

/// Nothing that comes out of a tree may write to a terminal.
pub fn shown(texts: impl IntoIterator<Item = String>) {
    for text in texts {
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }
}
