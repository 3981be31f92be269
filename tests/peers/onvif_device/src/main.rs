//! A camera over ONVIF that others have written: the crate `onvif-server`, which shares no code with MOS nor with
//! `onvif_camera.py`. It answers WS-Discovery, checks WS-UsernameTokens (digest, nonce and time) and every request against
//! ONVIF's own WSDL and schema files.
//!
//!     onvif_device PORT USER PASSWORD UUID STREAM SNAPSHOT
//!
//! Says on standard output what it was asked and let in, a line each. Ours are only the texts below.

use async_trait::async_trait;
use onvif_server::{DeviceInfo, DeviceService, EventService, MediaProfile, MediaService, OnvifError, OnvifServer};

/// What it is asked for, and where its pictures are.
#[derive(Clone)]
struct Camera {
    stream: String,
    snapshot: String,
}

#[async_trait]
impl DeviceService for Camera {
    async fn get_device_information(&self) -> Result<DeviceInfo, OnvifError> {
        println!("GetDeviceInformation");
        Ok(DeviceInfo {
            manufacturer: "Others & Sons".into(),
            model: "Box <2>".into(),
            firmware_version: "2.0.1".into(),
            serial_number: "OS-4711".into(),
            hardware_id: "rev B".into(),
        })
    }
}

#[async_trait]
impl MediaService for Camera {
    fn profiles(&self) -> Vec<MediaProfile> {
        println!("GetProfiles");
        let profile = |token: &str, name: &str, width, height, framerate| MediaProfile {
            token: token.into(),
            name: name.into(),
            video_source_token: "eye".into(),
            width,
            height,
            encoding: "H264".into(),
            framerate,
            bitrate: 1024,
        };
        vec![profile("sub", "Small", 320, 180, 5), profile("main", "Large", 640, 360, 25)]
    }

    async fn get_stream_uri(&self, profile: &str) -> Result<String, OnvifError> {
        println!("GetStreamUri {profile}");
        Ok(self.stream.clone())
    }

    async fn get_snapshot_uri(&self, profile: &str) -> Result<String, OnvifError> {
        println!("GetSnapshotUri {profile}");
        Ok(self.snapshot.clone())
    }
}

#[async_trait]
impl EventService for Camera {}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [port, user, password, uuid, stream, snapshot] = given.as_slice() else {
        panic!("usage: onvif_device PORT USER PASSWORD UUID STREAM SNAPSHOT");
    };
    let camera = Camera { stream: stream.clone(), snapshot: snapshot.clone() };
    OnvifServer::builder()
        .port(port.parse().expect("a port"))
        .advertised_host("127.0.0.1")
        .discovery_uuid(uuid.parse().expect("a UUID"))
        .auth(user, password)
        .device_service(camera.clone())
        .media_service(camera.clone())
        .event_service(camera)
        .build()
        .expect("a camera")
        .run()
        .await
        .expect("a free port");
}
