function run_timing(script, images)
% Run a timing script as MonkeyLogic does: with the eye tracker, the screen and the Info field of the condition in its workspace.
eye_ = 1;
Screen = struct('PixelsPerDegree', str2double(getenv('PPD')) * [1 -1]);  % NaN where the test says nothing of it
Info = struct('trial', 7, 'images', images);
eval(fileread(script));
end
