//! The frame bus: live frames of every lens for other processes, without a copy and without harm to the camera.
