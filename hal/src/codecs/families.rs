//! The table of element families: what each codec element is called, which units it counts in, what it is limited to and
//! where it misleads.
//!
//! Promises that no other place in MOS knows a unit or a rate-control property of an encoder. Every row cites where its facts come from,
//! with a grade: S read in source or binding, P the vendor's or project's page, I inferred, G common knowledge. Nothing here
//! was tried on a board; what a board shows otherwise is to be mended here, in one row.

use std::fmt;

use crate::media::VideoCodec;

/// What an element does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Raw pictures to a stream.
    Encode(VideoCodec),
    /// A stream to raw pictures.
    Decode(VideoCodec),
    /// A raw picture to a JPEG.
    EncodeJpeg,
    /// A camera's JPEG to a raw picture.
    DecodeJpeg,
    /// Pixel format and size.
    Convert,
}

impl Task {
    /// All tasks, in the order in which they are reported.
    pub const ALL: [Self; 7] = [
        Self::Encode(VideoCodec::H264),
        Self::Encode(VideoCodec::H265),
        Self::Decode(VideoCodec::H264),
        Self::Decode(VideoCodec::H265),
        Self::EncodeJpeg,
        Self::DecodeJpeg,
        Self::Convert,
    ];
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode(codec) => write!(f, "encode {}", codec.name()),
            Self::Decode(codec) => write!(f, "decode {}", codec.name()),
            Self::EncodeJpeg => f.write_str("encode jpeg"),
            Self::DecodeJpeg => f.write_str("decode jpeg"),
            Self::Convert => f.write_str("convert"),
        }
    }
}

/// Where the pixels are while the element works on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// In dmabufs; the CPU touches none.
    Dmabuf,
    /// In memory that the CPU reads.
    System,
}

impl Memory {
    /// The word in the API: `dmabuf` or `system`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dmabuf => "dmabuf",
            Self::System => "system",
        }
    }
}

/// What `{bitrate}` in a template counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// bit/s
    Bit,
    /// kbit/s, 1000 bit/s
    Kbit,
}

/// What an element takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Smallest and largest width in pixels.
    pub width: (u32, u32),
    /// Smallest and largest height in pixels.
    pub height: (u32, u32),
    /// Smallest and largest bit rate in bit/s.
    pub bitrate: (u32, u32),
}

impl Limits {
    /// Where no limit is known; what MOS itself accepts.
    const NONE: Self = Self { width: (16, 16_384), height: (16, 16_384), bitrate: (1000, 1_000_000_000) };
}

/// One row.
#[derive(Debug)]
pub struct Family {
    /// The element's factory name.
    pub element: &'static str,
    /// What it does.
    pub task: Task,
    /// What it does it in.
    pub memory: Memory,
    /// A V4L2 card that must be there too: elements of this name exist for other hardware as well.
    pub card: Option<&'static str>,
    /// How it is written in a pipeline; of an encoder: `{bitrate}` in `unit`, `{gop}` in frames, and where V4L2 must be told
    /// how pictures come, `{io}`. An element whose properties are not known has none, and is never chosen.
    pub template: &'static str,
    /// What `{bitrate}` counts.
    pub unit: Unit,
    /// Its own limits.
    pub limits: Limits,
    /// What misleads about it, and what is done about that.
    pub trap: &'static str,
    /// Where the row comes from.
    pub facts: &'static str,
}

/// What rows have unless they say otherwise.
const ROW: Family = Family {
    element: "",
    task: Task::Convert,
    memory: Memory::System,
    card: None,
    template: "",
    unit: Unit::Bit,
    limits: Limits::NONE,
    trap: "",
    facts: "",
};

/// Size limits of the i.MX8M Plus encoder's elements.
const VC8000E: Limits = Limits { width: (64, 1920), height: (64, 1088), bitrate: (10_000, 288_000_000) };
const VSI: &str =
    "VeriSilicon vsi-v4l2-enc.c [S]; Freescale/gstreamer-imx#296 [P]; control names: Linux v4l2-ctrls-defs.c [S]";
const VPU_WRAPPER: &str = "nxp-imx/imx-gst1.0-plugin 91c7fec8 [S]; profile numbers from 10 up [G]";
const QTI: &str = "qualcomm/gst-plugins-imsdk 806ad865 [S]";
const HANTRO: &str = "Linux drivers/media/platform/verisilicon/imx8m_vpu_hw.c [S]";
const HOST: &str = "gst-inspect-1.0 of GStreamer 1.22 [S]";

/// `v4l2h264enc` on NXP's BSP.
pub const VSI_H264: Family = Family {
    element: "v4l2h264enc",
    task: Task::Encode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    card: Some("vsi_v4l2enc"),
    template: "v4l2h264enc output-io-mode={io} extra-controls=\"controls,video_bitrate={bitrate},video_gop_size={gop},\
               frame_level_rate_control_enable=1\" ! video/x-h264,profile=high",
    limits: VC8000E,
    trap: "frame rate control is off by default, the profile is Baseline: both are set",
    facts: VSI,
    ..ROW
};

/// `v4l2h265enc` on NXP's BSP.
pub const VSI_H265: Family = Family {
    element: "v4l2h265enc",
    task: Task::Encode(VideoCodec::H265),
    template: "v4l2h265enc output-io-mode={io} extra-controls=\"controls,video_bitrate={bitrate},video_gop_size={gop},\
               frame_level_rate_control_enable=1\"",
    trap: "frame rate control is off by default: it is set",
    ..VSI_H264
};

/// The VPU wrapper's encoder on NXP's BSP.
pub const VPUENC_H264: Family = Family {
    element: "vpuenc_h264",
    task: Task::Encode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "vpuenc_h264 bitrate={bitrate} gop-size={gop} profile=11",
    unit: Unit::Kbit,
    limits: VC8000E,
    trap: "counts kbit/s; picks Baseline unless the profile is set; NXP calls the wrapper deprecated",
    facts: VPU_WRAPPER,
    ..ROW
};

/// The same for H.265, whose profile has no trap.
pub const VPUENC_HEVC: Family = Family {
    element: "vpuenc_hevc",
    task: Task::Encode(VideoCodec::H265),
    template: "vpuenc_hevc bitrate={bitrate} gop-size={gop}",
    trap: "counts kbit/s; NXP calls the wrapper deprecated",
    ..VPUENC_H264
};

/// The community's encoder.
pub const IMXVPUENC_H264: Family = Family {
    element: "imxvpuenc_h264",
    task: Task::Encode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    facts: "Freescale/libimxvpuapi README [P]",
    ..ROW
};

/// The community's encoder.
pub const IMXVPUENC_H265: Family =
    Family { element: "imxvpuenc_h265", task: Task::Encode(VideoCodec::H265), ..IMXVPUENC_H264 };

/// `v4l2h264dec` on NXP's BSP.
pub const VSI_DEC_H264: Family = Family {
    element: "v4l2h264dec",
    task: Task::Decode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    card: Some("vsi_v4l2dec"),
    template: "v4l2h264dec",
    trap: "needs its user-space daemon, else ENODEV",
    facts: VSI,
    ..ROW
};

/// The VPU wrapper's decoder, which takes several codecs.
pub const VPUDEC_H264: Family = Family {
    element: "vpudec",
    task: Task::Decode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "vpudec frame-drop=false",
    trap: "drops frames by default: that is switched off",
    facts: VPU_WRAPPER,
    ..ROW
};

/// The same for H.265.
pub const VPUDEC_H265: Family = Family { task: Task::Decode(VideoCodec::H265), ..VPUDEC_H264 };

/// Mainline's G1.
pub const STATELESS_H264: Family = Family {
    element: "v4l2slh264dec",
    task: Task::Decode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "v4l2slh264dec ! video/x-raw,format=NV12",
    facts: HANTRO,
    ..ROW
};

/// Mainline's G2.
pub const STATELESS_H265: Family = Family {
    element: "v4l2slh265dec",
    task: Task::Decode(VideoCodec::H265),
    template: "v4l2slh265dec ! video/x-raw,format=NV12",
    trap: "may give tiled frames: NV12 is asked for",
    ..STATELESS_H264
};

/// NXP's 2D converter.
pub const G2D: Family = Family {
    element: "imxvideoconvert_g2d",
    memory: Memory::Dmabuf,
    template: "imxvideoconvert_g2d",
    facts: VPU_WRAPPER,
    ..ROW
};

/// The JPEG decoder that NXP's chips of this family have.
pub const MXC_JPEG_DEC: Family = Family {
    element: "v4l2jpegdec",
    task: Task::DecodeJpeg,
    memory: Memory::Dmabuf,
    card: Some("mxc-jpeg"),
    template: "v4l2jpegdec",
    trap: "only one catalogue lists the hardware for this chip",
    facts: "that catalogue, unconfirmed [P]; name of the card: Linux mxc-jpeg.c [G]",
    ..ROW
};

/// Qualcomm's Codec2 encoder.
pub const QTIC2_H264: Family = Family {
    element: "qtic2venc",
    task: Task::Encode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "qtic2venc control-rate=constant target-bitrate={bitrate} idr-interval={gop} ! video/x-h264",
    trap: "rate control is disabled by default: it is set; an idr-interval of 0 or 1 makes every frame a keyframe",
    facts: QTI,
    ..ROW
};

/// The same for H.265.
pub const QTIC2_H265: Family = Family {
    task: Task::Encode(VideoCodec::H265),
    template: "qtic2venc control-rate=constant target-bitrate={bitrate} idr-interval={gop} ! video/x-h265",
    ..QTIC2_H264
};

/// `v4l2h264enc` as Qualcomm Linux uses it.
pub const IRIS_H264: Family = Family {
    element: "v4l2h264enc",
    task: Task::Encode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "v4l2h264enc capture-io-mode=dmabuf output-io-mode={io} \
               extra-controls=\"controls,video_bitrate={bitrate},video_gop_size={gop}\"",
    trap: "the SDK's examples set both io modes to dmabuf (4)",
    facts: "docs.qualcomm.com SDK examples [P]; Linux drivers/media/platform/qcom/iris/iris_probe.c [S]",
    ..ROW
};

/// The same for H.265.
pub const IRIS_H265: Family = Family {
    element: "v4l2h265enc",
    task: Task::Encode(VideoCodec::H265),
    template: "v4l2h265enc capture-io-mode=dmabuf output-io-mode={io} \
               extra-controls=\"controls,video_bitrate={bitrate},video_gop_size={gop}\"",
    ..IRIS_H264
};

/// Qualcomm's Codec2 decoder.
pub const QTIC2_DEC_H264: Family = Family {
    element: "qtic2vdec",
    task: Task::Decode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "qtic2vdec",
    trap: "needs chroma-format and bit-depth in its caps, so h264parse first; its memories are not dmabuf-typed",
    facts: QTI,
    ..ROW
};

/// The same for H.265.
pub const QTIC2_DEC_H265: Family = Family { task: Task::Decode(VideoCodec::H265), ..QTIC2_DEC_H264 };

/// `v4l2h264dec` as Qualcomm Linux uses it.
pub const IRIS_DEC_H264: Family = Family {
    element: "v4l2h264dec",
    task: Task::Decode(VideoCodec::H264),
    memory: Memory::Dmabuf,
    template: "v4l2h264dec capture-io-mode=dmabuf output-io-mode=dmabuf",
    trap: "the SDK's examples set both io modes to dmabuf (4): so do we",
    facts: "docs.qualcomm.com SDK examples [P]",
    ..ROW
};

/// The same for H.265.
pub const IRIS_DEC_H265: Family = Family {
    element: "v4l2h265dec",
    task: Task::Decode(VideoCodec::H265),
    template: "v4l2h265dec capture-io-mode=dmabuf output-io-mode=dmabuf",
    ..IRIS_DEC_H264
};

/// Qualcomm's JPEG encoder.
pub const QTIJPEG: Family = Family {
    element: "qtijpegenc",
    task: Task::EncodeJpeg,
    memory: Memory::Dmabuf,
    template: "qtijpegenc",
    trap: "takes fd memory only, and works through the camera service",
    facts: QTI,
    ..ROW
};

/// Qualcomm's converter.
pub const QTIVTRANSFORM: Family =
    Family { element: "qtivtransform", memory: Memory::Dmabuf, template: "qtivtransform", facts: QTI, ..ROW };

/// The CPU's H.264 encoder. One thread: slices of one picture in several threads cost more CPU in total than they gain, and
/// lenses run in parallel anyway. Fixed GOPs: no keyframes at scene changes.
pub const X264: Family = Family {
    element: "x264enc",
    task: Task::Encode(VideoCodec::H264),
    template: "x264enc speed-preset=ultrafast tune=zerolatency threads=1 sliced-threads=false bframes=0 bitrate={bitrate} \
               key-int-max={gop} option-string=scenecut=0:open-gop=0",
    unit: Unit::Kbit,
    trap: "counts kbit/s",
    facts: HOST,
    ..ROW
};

/// The CPU's H.265 encoder.
pub const X265: Family = Family {
    element: "x265enc",
    task: Task::Encode(VideoCodec::H265),
    template: "x265enc speed-preset=ultrafast tune=zerolatency bitrate={bitrate} key-int-max={gop} log-level=error \
               option-string=bframes=0:scenecut=0:open-gop=0:min-keyint={gop}:pools=1:frame-threads=1:ref=1",
    ..X264
};

/// The CPU's H.264 decoder. One thread: with frame threads it returns pictures late. Without direct rendering: with it, libav's
/// lock on the picture makes GStreamer copy it into fresh memory, which costs more than the copy into a pool's buffer that this
/// asks for.
pub const AVDEC_H264: Family = Family {
    element: "avdec_h264",
    task: Task::Decode(VideoCodec::H264),
    template: "avdec_h264 max-threads=1 direct-rendering=false",
    facts: HOST,
    ..ROW
};

/// Cisco's H.264 decoder.
pub const OPENH264_DEC: Family = Family {
    element: "openh264dec",
    task: Task::Decode(VideoCodec::H264),
    template: "video/x-h264,stream-format=byte-stream ! openh264dec",
    facts: HOST,
    ..ROW
};

/// The CPU's H.265 decoder.
pub const AVDEC_H265: Family = Family {
    element: "avdec_h265",
    task: Task::Decode(VideoCodec::H265),
    template: "avdec_h265 max-threads=1 direct-rendering=false",
    ..AVDEC_H264
};

/// Another H.265 decoder.
pub const LIBDE265: Family = Family {
    element: "libde265dec",
    task: Task::Decode(VideoCodec::H265),
    template: "libde265dec max-threads=1",
    facts: HOST,
    ..ROW
};

/// The CPU's JPEG encoder.
pub const JPEGENC: Family =
    Family { element: "jpegenc", task: Task::EncodeJpeg, template: "jpegenc idct-method=islow", facts: HOST, ..ROW };

/// The CPU's JPEG decoder.
pub const JPEGDEC: Family =
    Family { element: "jpegdec", task: Task::DecodeJpeg, template: "jpegdec", facts: HOST, ..ROW };

/// The CPU's converter.
pub const VIDEOCONVERT: Family = Family { element: "videoconvert", template: "videoconvert", facts: HOST, ..ROW };

/// What every machine has, in order of preference.
pub const SOFTWARE: [&Family; 9] =
    [&X264, &X265, &AVDEC_H264, &OPENH264_DEC, &AVDEC_H265, &LIBDE265, &JPEGENC, &JPEGDEC, &VIDEOCONVERT];
