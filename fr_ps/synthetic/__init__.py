"""The built-in faces: subjects, their appearance in a session, the view of the camera, and the raw captures."""
