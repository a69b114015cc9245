function onset = run_scene(scene, code)
% Stand-in for MonkeyLogic: a scene of 60 Hz that ends with the first frame after its hold time; fixation fails in the
% scene with the event code of the variable FAIL_AT.
onset = clock_set() * 1000;
hold = scene.adapter;
hold.Success = code ~= str2double(getenv('FAIL_AT'));
hold.Waiting = ~hold.Success && code == 10;
frames = ceil(hold.HoldTime * 60 / 1000);
clock_set(clock_set() + frames / 60);
printf('SCENE %d %s %d\n', code, mat2str(scene.objects), frames);
end
