"""The constants by which ImageBind scales its inputs. In: nothing. Out: means and standard deviations.

Values of the published loaders; for depth those of the same group's Omnivore, for thermal none were ever published.
"""

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]; images and video frames
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
AUDIO_MEAN, AUDIO_STD = -4.268, 9.138  # of log-mel energies
DEPTH_MEAN, DEPTH_STD = 0.0418, 0.0295  # of disparity / 75
THERMAL_MEAN, THERMAL_STD = 0.5, 0.5  # of brightness in [0, 1]
