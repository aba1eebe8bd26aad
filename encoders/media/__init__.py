"""Media files to decoded objects, one modality a file. In: bytes, paths, URIs, arrays. Out: pictures, sounds, clips, traces."""
